"""torch.compile as an option: block by block, and left out where it does not work."""

import warnings

import torch
from torch import Tensor, nn

from diffusion_lab.models.encoder_processor_decoder import DiffusionModelEncProcDec


def compile_blocks(model: DiffusionModelEncProcDec, backend: str = "inductor") -> bool:
    """Let torch.compile fuse what stands between the matrix products of each block, from its next call on.

    Blocks of a kind share one compilation: tens of seconds in all, where the whole network takes minutes. The
    first call of another batch size compiles once more, for any batch size then. Weights, their names and
    `state_dict` stay as they are. On a CPU, `accelerate` is the faster way.

    Args:
        model: the network, on the device it is to run on; changed in place.
        backend: of torch.compile.

    Returns:
        Whether the blocks are compiled; if not, a warning says why, and the model runs as it did.
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
