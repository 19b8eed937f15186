"""What makes a network fast on a machine. It gives the answers of `models` and can be left out of a reading.

`accelerate` is for CPUs, `compile_blocks` for GPUs. Nothing in `models` knows of either.
"""

from diffusion_lab.acceleration.compilation import compile_blocks
from diffusion_lab.acceleration.transformation import Acceleration, accelerate

__all__ = ["Acceleration", "accelerate", "compile_blocks"]
