"""What single values of configs and requests may be: read here once, and typed from here on."""

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
    """How a value is written, in a word or two, for the help of a command."""

    how: str


def _name(name: Any) -> str:
    text = str(name) if isinstance(name, str | int) and not isinstance(name, bool) else ""
    if not text or text != text.strip() or re.search(r"[/\\\x00-\x1f\x7f]|\$\{|^\.", text):
        raise ValueError(
            "is not a name for a run, which is kept in runs/NAME; write letters, digits and signs, but not "
            "/ or \\ or ${, and no dot in front"
        )
    if len(text.encode()) > 200:
        raise ValueError("is too long for the name of a file; take at most 200 bytes")
    return text


Date = Annotated[np.datetime64, PlainValidator(parse_date), PlainSerializer(str), Written("date")]
"""A date at the precision that it is written with, see `stores.dates.parse_date`."""

Lead = Annotated[
    np.timedelta64, PlainValidator(lead_timedelta), PlainSerializer(lead_name), Written("length")
]
"""A length of time in seconds, written `6h` or `1d`."""

Name = Annotated[str, BeforeValidator(_name), Written("name")]
"""Of a run, and so of a folder: letters of any language, and signs that a file's name may have."""

Seed = Annotated[int, Field(ge=0, lt=2**63), Written("integer")]
"""Seeds are 64-bit integers, and some are counted up from."""


def distinct(values: list[Any]) -> list[Any]:
    """The values, none of them twice.

    Raises:
        ValueError: naming one that stands there twice.
    """
    for i, value in enumerate(values):
        if value in values[:i]:
            raise ValueError(f"{value} is given twice; leave one out")
    return values


Distinct = AfterValidator(distinct)


class Group(BaseModel):
    """A group of a config, or a request: unknown keys are errors, and a yes or no is not a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_not_true_or_false(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[str(info.field_name)].annotation
        if not mentions(annotation, bool, Any, BaseModel):
            held = (
                value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
            )
            for one in held:
                if isinstance(one, bool):
                    raise ValueError(f"{str(one).lower()} is not a number")
        return value


def mentions(annotation: Any, *kinds: Any) -> bool:
    """Whether a type is one of some, a class derived from one, or holds such a type."""
    own = isinstance(annotation, type) and any(kind in annotation.__mro__ for kind in kinds)
    return own or annotation in kinds or any(mentions(part, *kinds) for part in get_args(annotation))
