"""Checking a composed config before anything is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, cast, get_args

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, PlainValidator, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from diffusion_lab.config.composition import shipped
from diffusion_lab.config.facts import disagreements
from diffusion_lab.config.schema import Config
from diffusion_lab.config.targets import ConfigError
from diffusion_lab.spelling import nearest


def validate(config: DictConfig) -> Config:
    """Resolve a composed config and check types, ranges, names, and what must agree.

    With `config_validation: False` none of this is checked and unknown keys are ignored: each class still
    refuses values that it cannot use, but only when it is built.

    Raises:
        ConfigError: listing each fault as path, value and remedy.
    """
    try:
        plain = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"{error.full_key}: {reason}; a path counts from the top, as in ${{model.num_channels}}"
        ) from None
    if plain.get("config_validation") is False:
        return _unchecked(Config, plain)
    try:
        checked = Config.model_validate(plain)
        faults = disagreements(checked)
    except ValidationError as error:
        faults = [line for fault in error.errors() for line in _explain(fault).splitlines()]
    if faults:
        raise ConfigError("\n".join(["The config cannot be used:", *(f"  {line}" for line in faults)]))
    return checked


def _unchecked(schema: type[BaseModel], node: Mapping[str, Any]) -> Any:
    fields, others = schema.model_fields, schema.model_config.get("extra") == "allow"
    kept = {}
    for key, value in node.items():
        if key in fields:
            kept[key] = _unchecked_value(fields[key], value)
        elif key == "_target_" or others:
            kept[key] = value
    return schema.model_construct(**kept)


def _unchecked_value(field: FieldInfo, value: Any) -> Any:
    if (group := _group(field.annotation)) is not None:
        return _unchecked(group, value)
    if any(isinstance(part, PlainValidator) for part in field.metadata):
        # Dates and lengths of time are values, not words, also where nothing is checked.
        annotated: Any = Annotated[field.annotation, *field.metadata]
        return TypeAdapter(annotated).validate_python(value)
    return value


def _explain(fault: Mapping[str, Any]) -> str:
    """`explain`, with the shipped value for an example where pydantic itself found the fault."""
    text = explain(fault, Config)
    if fault["type"] in ("fault", "value_error", "extra_forbidden"):
        return text
    example = OmegaConf.select(OmegaConf.create(shipped()), ".".join(map(str, fault["loc"])))
    return text if example is None else f"{text}; shipped: {example}"


def explain(fault: Mapping[str, Any], schema: type[BaseModel]) -> str:
    """One of pydantic's errors as "path = value: reason and remedy"."""
    path, value = ".".join(str(part) for part in fault["loc"]), fault["input"]
    kind, details = fault["type"], fault.get("ctx", {})
    if kind == "fault":  # see `targets.fault`
        if not path:
            return details["reason"]
        path = ".".join(filter(None, [path, details["key"]]))
        return f"{path} = {_shown(details['value'])}: {details['reason']}"
    if kind == "missing":
        return f"{path}: is required; write {path}=…"
    if kind == "extra_forbidden":
        return f"{path} = {_shown(value)}: there is no such key" + nearest(
            str(fault["loc"][-1]), _keys(schema, fault["loc"][:-1])
        )
    reason = fault["msg"].removeprefix("Value error, ")
    if not path:  # of the whole, rather than of one key
        return reason
    reason = reason[0].lower() + reason[1:] if reason.startswith("Input ") else reason
    return f"{path} = {_shown(value)}: {reason}"


def _shown(value: Any) -> str:
    text = value if value == "nothing" else repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _keys(schema: type[BaseModel], path: Sequence[Any]) -> list[str]:
    for part in path:
        below = _group(schema.model_fields[part].annotation)
        assert below is not None, "an unknown key lies in a group"
        schema = below
    return [field.alias or name for name, field in schema.model_fields.items()]


def _group(annotation: Any) -> type[BaseModel] | None:
    options = get_args(annotation) or (annotation,)
    return next((a for a in options if isinstance(a, type) and issubclass(a, BaseModel)), None)
