"""Composing a config from its groups with Hydra."""

from __future__ import annotations

import copy
import re
from collections.abc import Container, Sequence
from contextlib import suppress
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffusion_lab.config.targets import ConfigError, is_target
from diffusion_lab.spelling import nearest


def config_folder(own: str | Path | None = None, config_name: str = "") -> Path:
    """Your own folder if it holds the config, else the shipped one, in the wheel or beside the package.

    Raises:
        ConfigError: there is no such folder, or the config is in neither.
    """
    inside = Path(str(files("diffusion_lab"))) / "configs"
    folders = [inside if inside.is_dir() else inside.parents[1] / "configs"]
    if own is not None:
        if not Path(own).is_dir():
            raise ConfigError(f"--config-dir {own}: there is no such folder")
        folders.append(Path(own).resolve())
    name = config_name.removesuffix(".yaml")
    known = {path.stem: folder for folder in folders for path in sorted(folder.glob("*.yaml"))}
    if name and name not in known:
        where = f"--config-dir {own}" if own is not None else "the shipped configs; see --config-dir"
        raise ConfigError(f"--config-name {name}: there is no {name}.yaml in {where}{nearest(name, known)}")
    return known.get(name, folders[0])


def compose(
    overrides: Sequence[str] = (), config_name: str = "config", config_dir: str | Path | None = None
) -> DictConfig:
    """Compose a config from its groups.

    Your own files may be partial: what they leave out is taken from the shipped config.

    Args:
        overrides: Hydra overrides such as "model=transformer_diffusion" or "training.lr=3e-4".
        config_name: a file in `config_dir` or among the shipped ones, without ".yaml".
        config_dir: your own configs, searched before the shipped ones.

    Raises:
        ConfigError: with Hydra's reason.
    """
    folder = config_folder(config_dir, config_name)
    return complete(_compose(folder, config_name, hydra_overrides(overrides, config_dir)), config_name)


def hydra_overrides(
    overrides: Sequence[str], config_dir: str | Path | None = None, *, sweep: bool = False
) -> list[str]:
    """Overrides in Hydra's grammar.

    "a.b=c" becomes "++a.b=c", as Hydra refuses keys that your own group leaves out; `validate` names unknown
    ones. Values that Hydra could not parse, and names of runs and of groups' files, are quoted.

    Args:
        overrides: as typed.
        config_dir: your own configs.
        sweep: a value with commas stands for several values, also of a name or a group.
    """
    folders = [Path(folder).resolve() for folder in (config_dir, config_folder()) if folder]
    groups = {path.name for folder in folders for path in folder.iterdir() if path.is_dir()}
    value = re.compile(r"(?!hydra\.)(name|\w+(\.[\w-]+)+)=")
    quoted = [_quoted(word, groups, sweep) for word in overrides]
    words = [f"++{word}" if value.match(word) else word for word in quoted]
    searched = ",".join(f"file://{folder}" for folder in folders)
    return [f"hydra.searchpath=[{searched}]", *words] if config_dir else words


def _quoted(word: str, groups: Container[str], sweep: bool) -> str:
    key, equals, value = word.partition("=")
    if not equals or (value[:1] in ("'", '"') and value[:1] == value[-1:] and len(value) > 1):
        return word
    plain = key != "name" and key not in groups
    if plain or (sweep and "," in value) or "${" in value:
        with suppress(HydraException):
            OverridesParser.create().parse_override(word)
            return word
    return f"{key}={QuotedString(value, Quote.single).with_quotes()}"


def complete(config: DictConfig, config_name: str) -> DictConfig:
    """Fill in what the groups leave out from the shipped config; a run is named after its file by default."""
    own = cast(dict[str, Any], OmegaConf.to_container(config))
    own.setdefault("name", Path(config_name).stem)
    _fill(own, copy.deepcopy(shipped()))
    return OmegaConf.create(own)


@lru_cache(maxsize=1)
def shipped() -> dict[str, Any]:
    """The shipped config with its interpolations unresolved; callers must not change it."""
    return cast(dict[str, Any], OmegaConf.to_container(_compose(config_folder(), "config", [])))


def _fill(own: dict[str, Any], shipped: dict[str, Any]) -> None:
    for key, value in shipped.items():
        if key not in own:
            own[key] = value
        elif is_target(value) or key == "datasets":
            # Other classes have other keys, and datasets other names; but every model has `diffusion`.
            given = own[key].get("diffusion") if is_target(value) and isinstance(own[key], dict) else None
            if isinstance(given, dict):
                own[key]["diffusion"] = value["diffusion"] | given
        elif isinstance(value, dict) and isinstance(own[key], dict):
            _fill(own[key], value)


def _compose(folder: Path, config_name: str, overrides: list[str]) -> DictConfig:
    hydra = GlobalHydra.instance()
    before = hydra.hydra  # set within a sweep, whose runs compose configs too
    hydra.clear()
    try:
        with initialize_config_dir(str(folder), version_base="1.3"):
            return hydra_compose(config_name, overrides=overrides)
    except MissingConfigException as error:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        near = nearest(name, error.options) if error.options else nearest(group, shipped())
        kind = "file in this group" if error.options else "group"
        raise ConfigError(f"{group} = {name!r}: there is no such {kind}{near}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"a config file cannot be read as YAML: {error}") from None
    except (HydraException, OmegaConfBaseException) as error:
        reason = str(error)
        if unknown := re.match(r"Could not override '([\w.]+)'", reason):
            reason = f"{unknown[1]}: there is no such key{nearest(unknown[1], shipped())}"
        raise ConfigError(reason) from None
    finally:
        hydra.hydra = before
