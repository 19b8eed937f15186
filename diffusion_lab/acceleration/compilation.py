"""torch.compile block by block, where it works."""

import warnings

import torch
from torch import Tensor, nn

from diffusion_lab.models.encoder_processor_decoder import DiffusionModelEncProcDec


def compile_blocks(model: DiffusionModelEncProcDec, backend: str = "inductor") -> bool:
    """Compile each block with torch.compile, which fuses the operations between its matrix products.

    Blocks of one kind share a compilation, which takes tens of seconds in all; the whole network would take
    minutes. The first call with another batch size compiles once more, then for any batch size. Parameters
    and `state_dict` do not change. On a CPU, `accelerate` is faster.

    Args:
        model: the network, on the device it is to run on; changed in place.
        backend: for torch.compile.

    Returns:
        Whether the blocks are compiled; if not, a warning says why and the model runs as before.
    """
    try:
        probe = torch.compile(_probe, backend=backend)
        probe(torch.ones(8, device=next(model.parameters()).device))
    except Exception as error:  # no C++ compiler, no Triton, a Python or a system it does not know, …
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        warnings.warn(f"torch.compile does not work here; going on without it ({reason})", stacklevel=2)
        return False
    blocks: list[nn.Module] = [model.encoder, *model.processor.blocks, model.decoder]
    for block in blocks:
        block.forward = torch.compile(block.forward, backend=backend)
    return True


def _probe(x: Tensor) -> Tensor:
    return (2 * x).sin()
