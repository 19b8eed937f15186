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
    """A config that cannot be run; the message names path, value and remedy, and fits one screen."""


def fault(key: str, value: Any, reason: str) -> PydanticCustomError:
    """What is wrong with the value at a key below the place that is validated."""
    return PydanticCustomError("fault", "{reason}", {"key": key, "value": value, "reason": reason})


def is_target(node: Any) -> bool:
    """Whether a node of a config names a class."""
    return isinstance(node, Mapping) and "_target_" in node


def parameters(target: Callable) -> tuple[dict[str, inspect.Parameter], bool]:
    """The named parameters of a class or function, and whether it accepts any other keyword.

    Those that a class passes on by `**options` are those of its base.
    """
    found: dict[str, inspect.Parameter] = {}
    makers = [target]
    if inspect.isclass(target):
        makers = [cls.__dict__["__init__"] for cls in target.__mro__[:-1] if "__init__" in cls.__dict__]
    for maker in makers:
        own = list(inspect.signature(maker).parameters.values())[1 if inspect.isclass(target) else 0 :]
        for parameter in own:
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                found.setdefault(parameter.name, parameter)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in own):
            return found, False
    return found, bool(makers)


def check_target(
    node: Any, given: Sequence[str] = (), offered: Sequence[str] = (), all_taken: bool = True
) -> dict[str, Any]:
    """A node with `_target_`, its keys checked against the signature of what it names.

    Args:
        node: of the config.
        given: arguments that the program adds when it calls the target.
        offered: arguments that it adds where the target takes them and the node does not have them.
        all_taken: whether the target has to take all that is given.

    Returns:
        The node with our name in place of Anemoi's.

    Raises:
        PydanticCustomError: see `fault`.
    """
    if not is_target(node):
        raise fault("", node, "needs a _target_: the import path of a class or function")
    target = _find(node)
    known, takes_any = parameters(target)
    name = target.__name__
    for key, value in node.items():
        if key in given:
            raise fault(key, value, f"{name} is given this by the program; leave the key out")
        if key != "_target_" and key not in known and not takes_any:
            raise fault(key, value, f"{name} takes no {key!r}{nearest(key, set(known) - set(given))}")
    needed = {key for key, parameter in known.items() if parameter.default is inspect.Parameter.empty}
    if lacking := sorted(needed - {*node, *given, *offered}):
        raise fault(lacking[0], "nothing", f"{name} needs {', '.join(lacking)}; add {lacking[0]}: …")
    if all_taken and not takes_any and (surplus := [key for key in given if key not in known]):
        raise fault("_target_", node["_target_"], f"{name} must take {', '.join(surplus)}, which it is given")
    return {key: _check_nested(key, value) if is_target(value) else value for key, value in node.items()} | {
        "_target_": our_name(node["_target_"])
    }


def _check_nested(path: str, node: Mapping[str, Any]) -> dict[str, Any]:
    """A target among the arguments of another: names and keys only, arguments may be added later."""
    known, takes_any = parameters(_find(node, f"{path}."))
    for key, value in node.items():
        if key != "_target_" and key not in known and not takes_any:
            raise fault(f"{path}.{key}", value, f"{node['_target_']} takes no {key!r}{nearest(key, known)}")
    return dict(node) | {"_target_": our_name(node["_target_"])}


def _find(node: Mapping[str, Any], path: str = "") -> Callable:
    try:
        target = find(str(node["_target_"]))
    except ValueError as error:
        raise fault(f"{path}_target_", node["_target_"], str(error)) from None
    if not callable(target):
        raise fault(f"{path}_target_", node["_target_"], "is not a class or function")
    return target


def given_target(*given: str, offered: Sequence[str] = ()) -> BeforeValidator:
    """Checks a node with `_target_`; arguments as `check_target`."""
    return BeforeValidator(partial(check_target, given=given, offered=offered))


def instantiate(node: Mapping[str, Any], **arguments: Any) -> Any:
    """Call what `_target_` names with the node's other keys and `arguments`.

    Raises:
        ConfigError: naming the target and the keys, where it does not take their values.
    """
    options = {key: value for key, value in node.items() if key != "_target_"}
    built = {key: instantiate(value) if is_target(value) else value for key, value in options.items()}
    try:
        return find(node["_target_"])(**built, **arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{node['_target_']} with {options}: {error}") from None
