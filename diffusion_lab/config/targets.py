"""Classes that a config names by `_target_`: checked against their own signatures, then called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from diffusion_lab.config.names import find, our_name
from diffusion_lab.spelling import nearest


class ConfigError(ValueError):
    """A config that cannot be run; the message names path, value and remedy."""


def fault(key: str, value: Any, reason: str) -> PydanticCustomError:
    """A validation error that names a key below the node being validated."""
    return PydanticCustomError("fault", "{reason}", {"key": key, "value": value, "reason": reason})


def is_target(node: Any) -> bool:
    """Whether a node of a config names a class."""
    return isinstance(node, Mapping) and "_target_" in node


def parameters(target: Callable) -> tuple[dict[str, inspect.Parameter], bool]:
    """The named parameters of a class or function, and whether it accepts any other keyword.

    Where the constructor of a class passes on `**options`, the parameters of its base are included.
    """
    found: dict[str, inspect.Parameter] = {}
    makers, is_class = [target], inspect.isclass(target)
    if inspect.isclass(target):
        makers = [vars(cls)["__init__"] for cls in target.__mro__[:-1] if "__init__" in vars(cls)]
    for maker in makers:
        own = list(inspect.signature(maker).parameters.values())[is_class:]
        named = [one for one in own if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
        found = {one.name: one for one in named} | found
        if all(one.kind is not one.VAR_KEYWORD for one in own):
            return found, False
    return found, bool(makers)


def check_target(
    node: Any, given: Sequence[str] = (), offered: Sequence[str] = (), all_taken: bool = True
) -> dict[str, Any]:
    """A node with `_target_`, its keys checked against the signature of what it names.

    Args:
        node: of the config.
        given: arguments that the program adds when it calls the target.
        offered: arguments that it adds if the target takes them and the node leaves them out.
        all_taken: whether the target must take all of `given`.

    Returns:
        The node with our name in place of Anemoi's.

    Raises:
        PydanticCustomError: see `fault`.
    """
    if not is_target(node):
        raise fault("", node, "needs a _target_: the import path of a class or function")
    name, known, takes_any = _signature(node, given)
    needed = {key for key, parameter in known.items() if parameter.default is inspect.Parameter.empty}
    if lacking := sorted(needed - {*node, *given, *offered}):
        raise fault(lacking[0], "nothing", f"{name} needs {', '.join(lacking)}; add {lacking[0]}: …")
    if all_taken and not takes_any and (surplus := [key for key in given if key not in known]):
        raise fault("_target_", node["_target_"], f"{name} must take {', '.join(surplus)}, which it is given")
    for key, value in node.items():
        if is_target(value):  # names and keys only: it may be given further arguments later
            _signature(value, path=f"{key}.")
    return {**node, "_target_": our_name(node["_target_"])}


def _signature(
    node: Mapping[str, Any], given: Sequence[str] = (), path: str = ""
) -> tuple[str, dict[str, inspect.Parameter], bool]:
    """Name and `parameters` of a node's target, which must take the node's keys."""
    try:
        target = find(str(node["_target_"]))
    except ValueError as error:
        raise fault(f"{path}_target_", node["_target_"], str(error)) from None
    if not callable(target):
        raise fault(f"{path}_target_", node["_target_"], "is not a class or function")
    name, (known, takes_any) = target.__name__, parameters(target)
    for key, value in node.items():
        if key in given:
            raise fault(path + key, value, f"{name} is given this by the program; leave the key out")
        if key != "_target_" and key not in known and not takes_any:
            raise fault(path + key, value, f"{name} takes no {key!r}{nearest(key, set(known) - set(given))}")
    return name, known, takes_any


def given_target(*given: str, offered: Sequence[str] = ()) -> BeforeValidator:
    """Checks a node with `_target_`; arguments as `check_target`."""
    return BeforeValidator(partial(check_target, given=given, offered=offered))


def instantiate(node: Mapping[str, Any], **arguments: Any) -> Any:
    """Call what `_target_` names with the node's other keys and `arguments`.

    Raises:
        ConfigError: the target refuses these values.
    """
    options = {key: value for key, value in node.items() if key != "_target_"}
    built = {key: instantiate(value) if is_target(value) else value for key, value in options.items()}
    try:
        return find(node["_target_"])(**built, **arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{node['_target_']} with {options}: {error}") from None
