"""`accelerate`: replaces the `forward` of known blocks by a faster one with the same results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from diffusion_lab.models.blocks import MLP, GraphTransformerBlock, TransformerBlock
from diffusion_lab.models.normalization import ConditionalLayerNorm, QKNorm

_ATTENTION = {"norm": ConditionalLayerNorm, "qk_norm": QKNorm, "projection": nn.Linear}
# The parts of each known module that its faster form reads instead of calling them. A block calls its MLP.
PARTS: dict[type[nn.Module], dict[str, type[nn.Module]]] = {
    ConditionalLayerNorm: {"scale": nn.Linear, "bias": nn.Linear},
    QKNorm: {"query": nn.LayerNorm, "key": nn.LayerNorm},
    MLP: {"norm": ConditionalLayerNorm, "expand": nn.Linear, "contract": nn.Linear},
    TransformerBlock: {**_ATTENTION, "query_key_value": nn.Linear},
    GraphTransformerBlock: {**_ATTENTION, "norm_source": ConditionalLayerNorm}
    | dict.fromkeys(("query", "key_value", "edge"), nn.Linear),
}


@dataclass(frozen=True)
class Acceleration:
    """What `accelerate` did.

    Attributes:
        replaced: the blocks with a faster forward, by their names in the model.
    """

    replaced: dict[str, nn.Module]

    def undo(self) -> None:
        """Restore the forward of each block."""
        for block in self.replaced.values():
            block.__dict__.pop("forward", None)


def accelerate(model: nn.Module) -> Acceleration:
    """Give the known blocks of a network a faster forward in place; results agree to 1e-5.

    A block is replaced only if its type and its parts are exactly ours and have no hooks. Each call checks
    again, so later hooks and modules of your own take effect. The plain forward also handles everything other
    than float32 on the CPU, autocast and torch.compile. Parameters and `state_dict` do not change. The faster
    forms support neither second derivatives nor `torch.func`; call `undo` for these.

    Args:
        model: the network.

    Returns:
        What was replaced; empty if all blocks are already fast.
    """
    # Imported here, since it needs Numba, which a plain network does not.
    from diffusion_lab.acceleration import blocks

    faster: dict[type[nn.Module], Callable[..., Tensor]] = {
        MLP: blocks.mlp,
        TransformerBlock: blocks.transformer_block,
        GraphTransformerBlock: blocks.graph_transformer_block,
    }
    keep_freed_memory()
    replaced = {
        name: module
        for name, module in model.named_modules()
        if type(module) in faster and "forward" not in module.__dict__ and are_ours(module)
    }
    for module in replaced.values():
        module.forward = MethodType(_forward(type(module), faster[type(module)]), module)
    return Acceleration(replaced)


def _forward(kind: type[nn.Module], fast: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def forward(self: nn.Module, x: Tensor, *rest: Any) -> Tensor:
        return (fast if serves(x) and are_ours(self) else kind.forward)(self, x, *rest)

    return forward


def serves(x: Tensor) -> bool:
    """Whether our loops handle x: float32 on the CPU, without autocast or tracing."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
    )


def are_ours(module: nn.Module) -> bool:
    """Whether a known module's parts are exactly ours and have no hooks."""
    parts = ((getattr(module, name), kind) for name, kind in PARTS[type(module)].items())
    return not _has_any_global_hook() and all(
        _is_plain(part, kind) for part, kind in parts if part is not None
    )


def _is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module and its parts are exactly as `models` builds them."""
    if type(module) is not kind or _is_watched(module):
        return False
    if kind is nn.Linear:
        return module.bias is not None
    if kind is nn.LayerNorm:
        return module.bias is None and module.weight is not None and module.eps == 1e-5
    return all(_is_plain(getattr(module, name), part) for name, part in PARTS[kind].items())


def _is_watched(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
    )


def keep_freed_memory() -> None:
    """Have glibc keep up to 64 MB of freed memory instead of returning it to the system.

    Page faults on memory that was returned take a sixth of a network call. The amount kept depends on the
    largest array freed so far, up to 32 MB (mallopt(3), "dynamic mmap threshold"): here 31 MB, of which no
    page is touched. Other allocators are not affected.
    """
    torch.empty(31 * 2**18, device="cpu")
