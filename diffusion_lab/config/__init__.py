"""Hydra configs: composed, checked before anything is built, and turned into objects.

A config names classes and their arguments and nothing else; no class ever sees it. This package and
`training.build` are the places that know both.
"""

from diffusion_lab.config.composition import complete, compose, config_folder, hydra_overrides
from diffusion_lab.config.names import NAMES, find
from diffusion_lab.config.schema import NOISE_ARGUMENTS, Config, Window
from diffusion_lab.config.targets import ConfigError, instantiate, parameters
from diffusion_lab.config.validation import explain, validate
from diffusion_lab.config.values import Date, Distinct, Group, Lead, Seed, Written
from diffusion_lab.spelling import nearest

__all__ = [
    "NAMES",
    "NOISE_ARGUMENTS",
    "Config",
    "ConfigError",
    "Date",
    "Distinct",
    "Group",
    "Lead",
    "Seed",
    "Window",
    "Written",
    "complete",
    "compose",
    "config_folder",
    "explain",
    "find",
    "hydra_overrides",
    "instantiate",
    "nearest",
    "parameters",
    "validate",
]
