"""What requests share: words on the command line become typed fields, and the fields become the help."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Self, get_args

import numpy as np
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import AfterValidator, BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo

from diffusion_lab.config import ConfigError
from diffusion_lab.config.validation import explain
from diffusion_lab.config.values import Group, Seed, Written
from diffusion_lab.inference.forecaster import Forecaster, choose_device
from diffusion_lab.stores.dates import Period, lead_name, period


def _existing(device: str) -> str:
    choose_device(device)
    return device


Device = Annotated[str, AfterValidator(_existing), Written("cpu, cuda, cuda:1, … or auto")]
"""A device of this machine; "auto" is the GPU if there is one."""


class PredictKwargs(Group):
    """Overrides of the checkpoint's sampling defaults; their keys are checked by `SamplingSettings`."""

    noise_scheduler_params: dict[str, Any] = Field(default={}, description="num_steps, sigma_max, rho, …")
    sampler_params: dict[str, Any] = Field(default={}, description="sampler, S_churn, noise_correlation, …")


class Request(Group):
    """The settings of a command, from its words and files; a subclass's docstring is the command's help."""

    device: Device = Field("auto", description="where the network runs")
    predict_kwargs: PredictKwargs = Field(PredictKwargs(), description="changes to the sampling defaults")

    @classmethod
    def parse(cls, settings: Sequence[str]) -> Self:
        """From words "FILE.yaml" and "key=value"; later ones win.

        Raises:
            ConfigError: naming an unknown key and the nearest known one, or an invalid value.
        """
        try:
            given = OmegaConf.merge({}, *map(_setting, settings))
            return cls.model_validate(OmegaConf.to_container(given, resolve=True))
        except OmegaConfBaseException as error:
            raise ConfigError(str(error)) from None
        except ValidationError as error:
            raise ConfigError("\n".join(explain(fault, cls) for fault in error.errors())) from None

    @property
    def overrides(self) -> dict[str, dict[str, Any]]:
        """`predict_kwargs` as keyword arguments of `SamplingSettings.override`."""
        return self.predict_kwargs.model_dump()


class EnsembleRequest(Request):
    """Settings shared by the commands that make ensembles from a store."""

    data: str | None = Field(None, description="the store, if not the one that the checkpoint names")
    seed: Seed = Field(0, description="of the noise; a member is the same in ensembles of any size")


def _setting(word: str) -> DictConfig:
    if "=" in word:
        return OmegaConf.from_dotlist([word])
    try:
        keys = OmegaConf.load(word)
    except FileNotFoundError:
        raise ConfigError(f"there is no file {word!r}; settings are FILE.yaml and key=value") from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{word!r} cannot be read as YAML: {error}") from None
    if not isinstance(keys, DictConfig):
        raise ConfigError(f"{word!r} holds a list; write its settings as key: value")
    return keys


def help_of(request: type[Request]) -> str:
    """A command's help: the docstring of its request, then each field with its type, default and meaning."""
    fields, own = request.model_fields, request.__annotations__.keys() - Request.model_fields.keys()
    keys = list(_keys({key: fields[key] for key in sorted(fields, key=lambda key: key not in own)}))
    width = max(len(key) for key, _ in keys) + 2
    lines = [
        textwrap.fill(text, 110, initial_indent=f"  {key:<{width}}", subsequent_indent=" " * (width + 2))
        for key, text in keys
    ]
    return "\n".join([inspect.cleandoc(request.__doc__ or ""), "", "keys:", *lines])


def _keys(fields: dict[str, FieldInfo], above: str = "") -> Iterator[tuple[str, str]]:
    """Each key with its help text; a group is followed by its keys."""
    for key, field in fields.items():
        group = field.annotation
        if group == dict[str, Any] or (isinstance(group, type) and issubclass(group, BaseModel)):
            yield f"{above}{key}.…", field.description or ""
            yield from _keys(getattr(group, "model_fields", {}), "  .")
        else:
            text = " ".join(filter(None, [f"{_type(field)}:", field.description, _default(field)]))
            yield f"{above}{key}", text


def _type(field: FieldInfo) -> str:
    """How a field's value is written: as its type says, or by the name of a plain type."""
    parts = [*field.metadata, *_parts(field.annotation)]
    how = [part.how for part in parts if isinstance(part, Written)]
    plain = [_PLAIN[part] for part in parts if isinstance(part, type) and part in _PLAIN]
    return (how or plain or ["value"])[0]


_PLAIN = {bool: "true or false", int: "integer", float: "number", str: "text", Path: "path"}


def _parts(annotation: Any) -> Iterator[Any]:
    """A type and everything within it, from the outside in."""
    yield annotation
    for part in get_args(annotation):
        yield from _parts(part)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "(required)"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return ""
    if isinstance(value, np.timedelta64):
        value = lead_name(value)
    if isinstance(value, list | tuple):
        value = f"[{', '.join(map(str, value))}]"
    return f"(default: {str(value).lower() if isinstance(value, bool) else value})"


def steps_of(forecaster: Forecaster, lead_time: np.timedelta64) -> int:
    """The number of model steps in a lead time.

    Raises:
        ConfigError: it is not a multiple of the step.
    """
    steps, rest = divmod(lead_time, forecaster.step)
    if rest or steps < 1:
        raise ConfigError(
            f"lead_time = {lead_name(lead_time)}: is not a multiple of the model's step, "
            f"{lead_name(forecaster.step)}"
        )
    return int(steps)


def evaluation_window(
    forecaster: Forecaster, start: np.datetime64 | None, end: np.datetime64 | None
) -> Period:
    """The window to evaluate on: as requested, else the checkpoint's test window, else 2025.

    Raises:
        ConfigError: it ends before it starts.
    """
    named = forecaster.release.training.get("test_window", ("2025", "2025"))
    try:
        return period(named[0] if start is None else start, named[1] if end is None else end)
    except ValueError as error:
        raise ConfigError(f"start and end: {error}") from None
