"""Processors: a stack of blocks on the hidden nodes."""

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diffusion_lab.models.blocks import GraphTransformerBlock, TransformerBlock
from diffusion_lab.models.graph_features import EdgeFeatures


class GraphTransformerProcessor(nn.Module):
    """`num_layers` blocks of attention over the mesh's neighbours.

    Args:
        edges: the hidden-to-hidden edges.
        num_layers: blocks.
        num_channels: width of the nodes.
        num_heads: attention heads.
        mlp_ratio: width of each MLP over num_channels.
        cond_dim: width of the conditioning vector.
        gradient_checkpointing: recompute each block in the backward pass: less memory, a third more time.
    """

    def __init__(
        self,
        edges: EdgeFeatures,
        num_layers: int,
        num_channels: int,
        num_heads: int,
        mlp_ratio: int,
        cond_dim: int,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.edges = edges
        self.gradient_checkpointing = gradient_checkpointing
        self.blocks = nn.ModuleList(
            GraphTransformerBlock(num_channels, num_heads, mlp_ratio, cond_dim, edges.width)
            for _ in range(num_layers)
        )

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """Update x (sample, hidden node, channel) given cond (sample, condition)."""
        edge_attr = self.edges()
        for block in self.blocks:
            x = run_block(self, block, x, cond, edge_attr, self.edges.neighbours)
        return x


class TransformerProcessor(nn.Module):
    """`num_layers` blocks of full attention over all hidden nodes; see `GraphTransformerProcessor`."""

    def __init__(
        self,
        num_layers: int,
        num_channels: int,
        num_heads: int,
        mlp_ratio: int,
        cond_dim: int,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.gradient_checkpointing = gradient_checkpointing
        self.blocks = nn.ModuleList(
            TransformerBlock(num_channels, num_heads, mlp_ratio, cond_dim) for _ in range(num_layers)
        )

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """Update x (sample, hidden node, channel) given cond (sample, condition)."""
        for block in self.blocks:
            x = run_block(self, block, x, cond)
        return x


def run_block(processor: nn.Module, block: nn.Module, *inputs: object) -> Tensor:
    """Call the block, recomputing it in the backward pass where the processor asks for that."""
    if processor.gradient_checkpointing and processor.training:
        return checkpoint(block, *inputs, use_reentrant=False)
    return block(*inputs)
