"""What the network knows of the graph itself: fixed attributes and learnt ones, per node and per edge."""

import torch
from torch import Tensor, nn

from diffusion_lab.models.attention import Neighbours


class NodeFeatures(nn.Module):
    """Fixed node attributes (node, attribute) beside `trainable_size` learnt ones, zero at the start."""

    attributes: Tensor

    def __init__(self, attributes: Tensor, trainable_size: int) -> None:
        super().__init__()
        self.register_buffer("attributes", attributes.float(), persistent=False)
        self.trainable = nn.Parameter(torch.zeros(len(attributes), trainable_size))
        self.width = attributes.shape[1] + trainable_size

    def forward(self) -> Tensor:
        """All features, (node, width)."""
        return torch.cat([self.attributes, self.trainable], dim=1)


class EdgeFeatures(NodeFeatures):
    """Fixed and learnt edge attributes, with the edges themselves.

    Args:
        edge_index: (2, edge) source and target node numbers.
        attributes: (edge, attribute).
        num_targets: number of target nodes.
        trainable_size: learnt features per edge.
    """

    def __init__(self, edge_index: Tensor, attributes: Tensor, num_targets: int, trainable_size: int) -> None:
        neighbours = Neighbours(edge_index, num_targets)
        super().__init__(attributes[neighbours.order], trainable_size)
        self.neighbours = neighbours
