"""Transformer blocks, pre-norm, with the noise level in every normalisation."""

from torch import Tensor, nn

from diffusion_lab.models.attention import Neighbours, neighbour_attention
from diffusion_lab.models.feed_forward import feed_forward
from diffusion_lab.models.normalization import ConditionalLayerNorm, heads_of
from diffusion_lab.models.products import linear
from diffusion_lab.models.self_attention import self_attention


class MLP(nn.Module):
    """ConditionalLayerNorm → Linear → GELU → Linear, added to its input."""

    def __init__(self, num_channels: int, mlp_ratio: int, cond_dim: int) -> None:
        super().__init__()
        self.norm = ConditionalLayerNorm(num_channels, cond_dim)
        self.expand = nn.Linear(num_channels, mlp_ratio * num_channels)
        self.contract = nn.Linear(mlp_ratio * num_channels, num_channels)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """Update x (sample, node, channel) given cond (sample, condition)."""
        return feed_forward(x, *self.norm.gain_and_shift(cond), self.expand, self.contract)


class QKNorm(nn.Module):
    """Gains of the layer norm of queries and keys per head: it bounds the logits (Henry et al. 2020)."""

    def __init__(self, head_channels: int) -> None:
        super().__init__()
        self.query = nn.LayerNorm(head_channels, bias=False)
        self.key = nn.LayerNorm(head_channels, bias=False)


class TransformerBlock(nn.Module):
    """Full self-attention over all nodes, then an MLP.

    Args:
        num_channels: width of the nodes; divisible by num_heads.
        num_heads: attention heads.
        mlp_ratio: width of the MLP over num_channels.
        cond_dim: width of the conditioning vector.
    """

    def __init__(self, num_channels: int, num_heads: int, mlp_ratio: int, cond_dim: int) -> None:
        super().__init__()
        self.heads = (num_heads, head_channels(num_channels, num_heads))
        self.norm = ConditionalLayerNorm(num_channels, cond_dim)
        self.query_key_value = nn.Linear(num_channels, 3 * num_channels)
        self.qk_norm = QKNorm(self.heads[1])
        self.projection = nn.Linear(num_channels, num_channels)
        self.mlp = MLP(num_channels, mlp_ratio, cond_dim)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """Update x (sample, node, channel) given cond (sample, condition)."""
        gains = self.qk_norm.query.weight, self.qk_norm.key.weight
        query, key, value = heads_of(self.norm(x, cond), self.query_key_value, self.heads, *gains)
        out = self_attention(query, key, value)
        return self.mlp(linear(out.flatten(2), self.projection.weight, self.projection.bias, x), cond)


class GraphTransformerBlock(nn.Module):
    """Attention of target nodes over their graph neighbours, then an MLP on the target nodes.

    One block serves the processor (sources are the targets) and, with `bipartite`, the mappers between data
    and hidden nodes. Edge features enter keys and values (Shi et al. 2021, Eq. 3-4).

    Args:
        num_channels: width of the nodes; divisible by num_heads.
        num_heads: attention heads.
        mlp_ratio: width of the MLP over num_channels.
        cond_dim: width of the conditioning vector.
        edge_dim: width of the edge features.
        bipartite: sources are other nodes than the targets and get a normalisation of their own.
    """

    def __init__(
        self,
        num_channels: int,
        num_heads: int,
        mlp_ratio: int,
        cond_dim: int,
        edge_dim: int,
        bipartite: bool = False,
    ) -> None:
        super().__init__()
        self.heads = (num_heads, head_channels(num_channels, num_heads))
        self.norm = ConditionalLayerNorm(num_channels, cond_dim)
        self.norm_source = ConditionalLayerNorm(num_channels, cond_dim) if bipartite else None
        self.query = nn.Linear(num_channels, num_channels)
        self.key_value = nn.Linear(num_channels, 2 * num_channels)
        self.edge = nn.Linear(edge_dim, num_channels)
        self.qk_norm = QKNorm(self.heads[1])
        self.projection = nn.Linear(num_channels, num_channels)
        self.mlp = MLP(num_channels, mlp_ratio, cond_dim)

    def forward(
        self, x: Tensor, cond: Tensor, edge_attr: Tensor, nb: Neighbours, source: Tensor | None = None
    ) -> Tensor:
        """Update the target nodes x.

        Args:
            x: (sample, target node, channel).
            cond: (sample, condition).
            edge_attr: (edge, edge feature), in the order of `nb`; shared by all samples.
            nb: the neighbours.
            source: (sample, source node, channel); the targets themselves if left out.

        Returns:
            The shape of x.
        """
        normed = self.norm(x, cond)
        normed_source = normed if self.norm_source is None else self.norm_source(source, cond)
        (query,) = heads_of(normed, self.query, self.heads, self.qk_norm.query.weight)
        key, value = heads_of(normed_source, self.key_value, self.heads, self.qk_norm.key.weight)
        edge = linear(edge_attr, self.edge.weight, self.edge.bias).unflatten(-1, self.heads)
        out = neighbour_attention(query, key, value, edge, nb)
        return self.mlp(linear(out.flatten(2), self.projection.weight, self.projection.bias, x), cond)


def head_channels(num_channels: int, num_heads: int) -> int:
    """Channels per head; ValueError unless the heads divide the channels."""
    if num_channels % num_heads:
        raise ValueError(f"num_heads = {num_heads} does not divide num_channels = {num_channels}")
    return num_channels // num_heads
