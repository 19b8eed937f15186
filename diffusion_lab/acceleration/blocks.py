"""The blocks of `models` computed with our loops, in float32 on a CPU: same parameters, same results."""

from torch import Tensor

from diffusion_lab.acceleration.attention import full_attention, neighbour_attention
from diffusion_lab.acceleration.feed_forward import feed_forward
from diffusion_lab.acceleration.norms import split_heads
from diffusion_lab.acceleration.products import linear
from diffusion_lab.models.attention import Neighbours
from diffusion_lab.models.blocks import MLP, GraphTransformerBlock, TransformerBlock


def mlp(module: MLP, x: Tensor, cond: Tensor) -> Tensor:
    """As `MLP.forward`."""
    gain, shift = 1 + module.norm.scale(cond), module.norm.bias(cond)
    return feed_forward(x, gain, shift, module.expand, module.contract)


def transformer_block(module: TransformerBlock, x: Tensor, cond: Tensor) -> Tensor:
    """As `TransformerBlock.forward`."""
    layer, gains = module.query_key_value, (module.qk_norm.query.weight, module.qk_norm.key.weight)
    parts = split_heads(linear(module.norm(x, cond), layer.weight, layer.bias), gains, module.heads)
    out = full_attention(*(part.unflatten(-1, module.heads) for part in parts)).flatten(2)
    return module.mlp(x + linear(out, module.projection.weight, module.projection.bias), cond)


def graph_transformer_block(
    module: GraphTransformerBlock,
    x: Tensor,
    cond: Tensor,
    edge_attr: Tensor,
    nb: Neighbours,
    source: Tensor | None = None,
) -> Tensor:
    """As `GraphTransformerBlock.forward`."""
    normed = module.norm(x, cond)
    normed_source = normed if module.norm_source is None else module.norm_source(source, cond)
    query = linear(normed, module.query.weight, module.query.bias)
    key_value = linear(normed_source, module.key_value.weight, module.key_value.bias)
    (query,) = split_heads(query, (module.qk_norm.query.weight,), module.heads)
    key, value = split_heads(key_value, (module.qk_norm.key.weight,), module.heads)
    edge = linear(edge_attr, module.edge.weight, module.edge.bias)
    out = neighbour_attention(query, key, value, edge, nb, module.heads[0])
    return module.mlp(x + linear(out, module.projection.weight, module.projection.bias), cond)
