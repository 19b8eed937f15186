"""Compiles loops and distributes them over threads."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numba
import numpy as np
import torch
from numba.core import types
from numba.core.codegen import get_host_cpu_features
from numba.core.typing import Signature
from numba.extending import intrinsic
from torch import Tensor

F = np.float32
LOG2E = F(math.log2(math.e))


def _use_whole_registers() -> None:
    """Have Numba use all 512 bits of the registers of Intel processors: a third less time for attention.

    LLVM uses only 256 there, since early processors slowed down beyond. Numba reads this process-wide setting
    at the first compilation.
    """
    features, settings = get_host_cpu_features(), vars(numba.config)
    if "+avx512f" in features and settings["CPU_FEATURES"] is None:
        settings["CPU_FEATURES"] = f"{features},-prefer-256-bit"


_use_whole_registers()

compiled = numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
inlined = numba.njit(cache=True, fastmath=True, inline="always")


def run(kernel: Callable[..., None], count: int, *arguments: Tensor | float, least: int = 1) -> None:
    """Call `kernel(begin, end, *arguments)` on parts of 0 … count − 1, on as many threads as torch uses.

    A thread, whose call takes a tenth of a millisecond, gets at least `least`.
    """
    arrays = [x.detach().numpy() if isinstance(x, Tensor) else x for x in arguments]
    threads = max(1, min(torch.get_num_threads(), count // least))
    ends = [count * i // threads for i in range(threads + 1)]
    others = [_pool(threads).submit(kernel, ends[i], ends[i + 1], *arrays) for i in range(1, threads)]
    kernel(0, ends[1], *arrays)
    for other in others:
        other.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="kernels")


@intrinsic
def _as_float(typing: Any, x: Any) -> tuple[Signature, Callable[..., Any]]:
    """The float32 with the bits of an int32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), generate


@inlined
def exp2(x):
    """2^x for x ≤ 126, at least 2^-126, to 2e-7 relative: 2^⌊x⌋ by its bits, the rest by a polynomial."""
    x = max(x, F(-126))
    whole = np.floor(x)
    f = x - whole
    p = F(1.8775767e-3)
    p = p * f + F(8.9893397e-3)
    p = p * f + F(5.5826318e-2)
    p = p * f + F(2.4015361e-1)
    p = p * f + F(6.9315308e-1)
    p = p * f + F(9.9999994e-1)
    return p * _as_float((np.int32(whole) + np.int32(127)) << np.int32(23))  # type: ignore[call-arg]
