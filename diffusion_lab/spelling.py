"""Messages about names that are not known."""

import difflib
from collections.abc import Iterable


def closest(name: str, known: Iterable[str], cutoff: float = 0.5) -> str | None:
    """The known name that is most like another one, or None where none is.

    Args:
        name: As it was given.
        known: Names to compare it with.
        cutoff: Least similarity, from 0 to 1, as `difflib` measures it.
    """
    return next(iter(difflib.get_close_matches(name, list(known), 1, cutoff)), None)


def nearest(name: str, allowed: Iterable[str]) -> str:
    """The end of a message about an unknown name: the name it is most like, or all that are allowed."""
    allowed = list(allowed)
    near = closest(name, allowed)
    return f"; did you mean {near!r}?" if near else f"; allowed: {', '.join(allowed) or 'none'}"
