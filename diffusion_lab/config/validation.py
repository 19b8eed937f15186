"""Checking a composed config before anything is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast, get_args

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, PlainValidator, ValidationError

from diffusion_lab.config.composition import shipped
from diffusion_lab.config.facts import disagreements
from diffusion_lab.config.schema import Config
from diffusion_lab.config.targets import ConfigError
from diffusion_lab.spelling import nearest


def validate(config: DictConfig) -> Config:
    """Resolve a composed config and check types, ranges, names, and what must agree.

    With `config_validation: False` nothing is checked and unknown keys are ignored: each class still refuses
    values that it cannot use, but only when it is built.

    Raises:
        ConfigError: listing each fault as path, value and remedy.
    """
    try:
        plain = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    except OmegaConfBaseException as error:
        reason = f"{error.full_key}: {str(error).splitlines()[0]}"
        raise ConfigError(f"{reason}; a path counts from the top, as in ${{model.num_channels}}") from None
    if plain.get("config_validation") is False:
        return _unchecked(Config, plain)
    try:
        checked = Config.model_validate(plain)
        faults = disagreements(checked)
    except ValidationError as error:
        faults = [line for fault in error.errors() for line in _with_example(fault).splitlines()]
    if faults:
        raise ConfigError("\n".join(["The config cannot be used:", *(f"  {line}" for line in faults)]))
    return checked


def _unchecked(schema: type[BaseModel], node: Mapping[str, Any]) -> Any:
    fields, others = schema.model_fields, schema.model_config.get("extra") == "allow"
    kept = {key: value for key, value in node.items() if key in fields or key == "_target_" or others}
    for key in kept.keys() & fields.keys():
        if group := _group(fields[key].annotation):
            kept[key] = _unchecked(group, kept[key])
        for part in fields[key].metadata:
            if isinstance(part, PlainValidator):  # dates and lengths of time become objects even so
                kept[key] = cast(Callable[[Any], Any], part.func)(kept[key])
    return schema.model_construct(**kept)


def _with_example(fault: Mapping[str, Any]) -> str:
    """`explain`, with the shipped value as an example where pydantic itself found the fault."""
    text = explain(fault, Config)
    if fault["type"] in ("fault", "value_error", "extra_forbidden"):
        return text
    example = OmegaConf.select(OmegaConf.create(shipped()), ".".join(map(str, fault["loc"])))
    return text if example is None else f"{text}; shipped: {example}"


def explain(fault: Mapping[str, Any], schema: type[BaseModel]) -> str:
    """One of pydantic's errors as "path = value: reason and remedy"."""
    loc, value, reason = fault["loc"], fault["input"], fault["msg"].removeprefix("Value error, ")
    path = ".".join(map(str, loc))
    if fault["type"] == "missing":
        return f"{path}: is required; write {path}=…"
    if not path:  # of the whole, not of one key
        return reason
    if fault["type"] == "fault":  # see `targets.fault`
        path, value = ".".join(filter(None, [path, fault["ctx"]["key"]])), fault["ctx"]["value"]
    elif fault["type"] == "extra_forbidden":
        reason = "there is no such key" + nearest(str(loc[-1]), _keys(schema, loc[:-1]))
    elif reason.startswith("Input "):
        reason = reason[0].lower() + reason[1:]
    text = value if value == "nothing" else repr(value)
    return f"{path} = {text if len(text) <= 60 else text[:59] + '…'}: {reason}"


def _keys(schema: type[BaseModel], path: Sequence[Any]) -> list[str]:
    for part in path:
        group = _group(schema.model_fields[part].annotation)
        assert group is not None, "an unknown key belongs to a group"
        schema = group
    return [field.alias or name for name, field in schema.model_fields.items()]


def _group(annotation: Any) -> type[BaseModel] | None:
    options = get_args(annotation) or (annotation,)
    return next((a for a in options if isinstance(a, type) and issubclass(a, BaseModel)), None)
