"""Processors: a stack of blocks on the hidden nodes."""

from torch import Tensor, nn

from diffusion_lab.models.architecture import Architecture
from diffusion_lab.models.blocks import GraphTransformerBlock, TransformerBlock, run_block
from diffusion_lab.models.graph_features import EdgeFeatures


class GraphTransformerProcessor(nn.Module):
    """`num_layers` blocks of attention over the mesh's neighbours.

    Args:
        architecture: sizes.
        edges: the hidden-to-hidden edges.
    """

    def __init__(self, architecture: Architecture, edges: EdgeFeatures) -> None:
        super().__init__()
        self.edges = edges
        self.gradient_checkpointing = architecture.gradient_checkpointing
        self.blocks = nn.ModuleList(
            GraphTransformerBlock(architecture, edges.width) for _ in range(architecture.num_layers)
        )

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """Update x (sample, hidden node, channel) given cond (sample, condition)."""
        edge_attr, recompute = self.edges(), self.gradient_checkpointing and self.training
        for block in self.blocks:
            x = run_block(block, x, cond, edge_attr, self.edges.neighbours, recompute=recompute)
        return x


class TransformerProcessor(nn.Module):
    """`num_layers` blocks of full attention over all hidden nodes.

    Args:
        architecture: sizes.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.gradient_checkpointing = architecture.gradient_checkpointing
        self.blocks = nn.ModuleList(TransformerBlock(architecture) for _ in range(architecture.num_layers))

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """Update x (sample, hidden node, channel) given cond (sample, condition)."""
        for block in self.blocks:
            x = run_block(block, x, cond, recompute=self.gradient_checkpointing and self.training)
        return x
