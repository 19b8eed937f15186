"""Transformer blocks, pre-norm, with the noise level in every normalisation."""

from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from diffusion_lab.models.architecture import Architecture
from diffusion_lab.models.attention import Neighbours, full_attention, neighbour_attention
from diffusion_lab.models.normalization import ConditionalLayerNorm, QKNorm


class MLP(nn.Module):
    """ConditionalLayerNorm → Linear → GELU → Linear, added to its input."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        channels, hidden = architecture.num_channels, architecture.mlp_ratio * architecture.num_channels
        self.norm = ConditionalLayerNorm(channels, architecture.noise_cond_dim)
        self.expand = nn.Linear(channels, hidden)
        self.contract = nn.Linear(hidden, channels)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """Update x (sample, node, channel) given cond (sample, condition)."""
        hidden = self.expand(self.norm(x, cond))
        return x + self.contract(functional.gelu(hidden, approximate="tanh"))


class TransformerBlock(nn.Module):
    """Full attention over all nodes, then an MLP."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        channels = architecture.num_channels
        self.heads = (architecture.num_heads, channels // architecture.num_heads)
        self.norm = ConditionalLayerNorm(channels, architecture.noise_cond_dim)
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.qk_norm = QKNorm(self.heads[1])
        self.projection = nn.Linear(channels, channels)
        self.mlp = MLP(architecture)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """Update x (sample, node, channel) given cond (sample, condition)."""
        query, key, value = self.query_key_value(self.norm(x, cond)).unflatten(-1, (3, *self.heads)).unbind(2)
        query, key = self.qk_norm(query, key)
        out = full_attention(query, key, value)
        return self.mlp(x + self.projection(out.flatten(2)), cond)


class GraphTransformerBlock(nn.Module):
    """Attention of target nodes over their graph neighbours, then an MLP on the target nodes.

    One block serves the processor, whose sources are its targets, and with `bipartite` the mappers between
    data and hidden nodes. Edge features enter keys and values (Shi et al. 2021, Eq. 3-4).

    Args:
        architecture: sizes.
        edge_dim: width of the edge features.
        bipartite: sources are other nodes than the targets and have a normalisation of their own.
    """

    def __init__(self, architecture: Architecture, edge_dim: int, bipartite: bool = False) -> None:
        super().__init__()
        channels, cond_dim = architecture.num_channels, architecture.noise_cond_dim
        self.heads = (architecture.num_heads, channels // architecture.num_heads)
        self.norm = ConditionalLayerNorm(channels, cond_dim)
        self.norm_source = ConditionalLayerNorm(channels, cond_dim) if bipartite else None
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.edge = nn.Linear(edge_dim, channels)
        self.qk_norm = QKNorm(self.heads[1])
        self.projection = nn.Linear(channels, channels)
        self.mlp = MLP(architecture)

    def forward(
        self, x: Tensor, cond: Tensor, edge_attr: Tensor, nb: Neighbours, source: Tensor | None = None
    ) -> Tensor:
        """Update the target nodes x.

        Args:
            x: (sample, target node, channel).
            cond: (sample, condition).
            edge_attr: (edge, edge feature), in the order of `nb`; shared by all samples.
            nb: the neighbours.
            source: (sample, source node, channel); given if the block is bipartite.

        Returns:
            The shape of x.
        """
        normed = self.norm(x, cond)
        normed_source = normed if self.norm_source is None else self.norm_source(source, cond)
        query = self.query(normed).unflatten(-1, self.heads)
        key, value = self.key_value(normed_source).unflatten(-1, (2, *self.heads)).unbind(2)
        query, key = self.qk_norm(query, key)
        edge = self.edge(edge_attr).unflatten(-1, self.heads)
        out = neighbour_attention(query, key, value, edge, nb)
        return self.mlp(x + self.projection(out.flatten(2)), cond)


def run_block(block: nn.Module, *inputs: object, recompute: bool) -> Tensor:
    """Call the block; with `recompute`, again in the backward pass instead of keeping what it computed."""
    return checkpoint(block, *inputs, use_reentrant=False) if recompute else block(*inputs)
