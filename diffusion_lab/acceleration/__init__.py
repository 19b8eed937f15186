"""Faster forms of the blocks in `models`: `accelerate` for CPUs, `compile_blocks` for GPUs.

Nothing in `models` depends on them, and a first reading can leave them out.
"""

from diffusion_lab.acceleration.compilation import compile_blocks
from diffusion_lab.acceleration.transformation import Acceleration, accelerate

__all__ = ["Acceleration", "accelerate", "compile_blocks"]
