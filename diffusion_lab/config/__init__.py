"""Hydra configs: composed, checked, and then built.

A config names classes and their arguments; no class ever sees it. Only this package and `training` know both.
"""

from diffusion_lab.config.composition import compose, config_folder
from diffusion_lab.config.names import NAMES, find
from diffusion_lab.config.schema import Config
from diffusion_lab.config.targets import ConfigError, instantiate
from diffusion_lab.config.validation import validate
from diffusion_lab.config.values import Date, Lead
from diffusion_lab.spelling import nearest

__all__ = [
    "NAMES",
    "Config",
    "ConfigError",
    "Date",
    "Lead",
    "compose",
    "config_folder",
    "find",
    "instantiate",
    "nearest",
    "validate",
]
