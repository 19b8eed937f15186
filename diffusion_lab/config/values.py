"""Types of single values in configs and requests, parsed once on entry."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, get_args

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
    field_validator,
)

from diffusion_lab.stores.dates import lead_name, lead_timedelta, parse_date


@dataclass(frozen=True)
class Written:
    """How a value is written, for the help of a command."""

    how: str


def _name(name: Any) -> str:
    text = str(name) if isinstance(name, str | int) and not isinstance(name, bool) else ""
    if not text or text != text.strip() or re.search(r"[/\\\x00-\x1f\x7f]|\$\{|^\.", text):
        raise ValueError("is not a name for a run and its folder; leave out /, \\, ${ and a dot in front")
    if len(text.encode()) > 200:
        raise ValueError("is too long for the name of a file; take at most 200 bytes")
    return text


Date = Annotated[np.datetime64, PlainValidator(parse_date), PlainSerializer(str), Written("date")]
"""A date at the precision it is written with, see `stores.dates.parse_date`."""

Lead = Annotated[
    np.timedelta64, PlainValidator(lead_timedelta), PlainSerializer(lead_name), Written("length")
]
"""A length of time in seconds, written `6h` or `1d`."""

Name = Annotated[str, BeforeValidator(_name), Written("name")]
"""The name of a run, and so of its folder."""

Seed = Annotated[int, Field(ge=0, lt=2**63), Written("integer")]
"""63 bits, so that adding to a seed stays within 64."""


def _distinct(values: list[Any]) -> list[Any]:
    if twice := [value for i, value in enumerate(values) if value in values[:i]]:
        raise ValueError(f"{twice[0]} is given twice; leave one out")
    return values


Distinct = AfterValidator(_distinct)


class Group(BaseModel):
    """A group of a config, or a request: unknown keys are errors, and true and false are not numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_not_booleans(cls, value: Any, info: ValidationInfo) -> Any:
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
        booleans = [part for part in parts if isinstance(part, bool)]
        annotation = cls.model_fields[str(info.field_name)].annotation
        if booleans and not _mentions(annotation, bool, Any, BaseModel):
            raise ValueError(f"{str(booleans[0]).lower()} is not a number")
        return value


def _mentions(annotation: Any, *kinds: Any) -> bool:
    """Whether a type is, derives from, or contains one of the kinds."""
    own = isinstance(annotation, type) and any(kind in annotation.__mro__ for kind in kinds)
    return own or annotation in kinds or any(_mentions(part, *kinds) for part in get_args(annotation))
