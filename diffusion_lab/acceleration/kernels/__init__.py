"""The network's loops for a CPU, compiled by Numba: where torch's operations spend their time on memory.

Each loop does for the rows `begin` … `end` − 1 what its caller says, in float32 and on contiguous arrays, and
is dealt to threads by `run`. A compiler makes vectors of flat loops with one result, hence their number. It
may change the order of sums, so that the last digits differ between machines. Compiled code is kept on disk
beside the source, or in the user's cache where that cannot be written: the first call ever takes seconds.
"""

from diffusion_lab.acceleration.kernels.attention import (
    full_attention,
    full_attention_backward,
    neighbour_attention,
    neighbour_attention_backward,
)
from diffusion_lab.acceleration.kernels.loops import run
from diffusion_lab.acceleration.kernels.rows import (
    LEAST,
    ROWS,
    gelu,
    gelu_backward,
    head_norm,
    head_norm_backward,
    layer_norm,
    layer_norm_backward,
)

__all__ = [
    "LEAST",
    "ROWS",
    "full_attention",
    "full_attention_backward",
    "gelu",
    "gelu_backward",
    "head_norm",
    "head_norm_backward",
    "layer_norm",
    "layer_norm_backward",
    "neighbour_attention",
    "neighbour_attention_backward",
    "run",
]
