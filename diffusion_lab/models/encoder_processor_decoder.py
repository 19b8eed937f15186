"""The forecaster network: data nodes → hidden nodes → data nodes, preconditioned as in EDM.

Shapes at the boundary are (batch, time, ensemble, grid, variable); inside, (batch·ensemble, node, channel).
The graph is shared by the whole batch and the noise level is one vector per sample.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from diffusion_lab.denoisers import EDMDenoiser
from diffusion_lab.models.blocks import GraphTransformerBlock
from diffusion_lab.models.embeddings import NoiseConditioning
from diffusion_lab.models.graph_features import EdgeFeatures, NodeFeatures
from diffusion_lab.models.normalization import ConditionalLayerNorm
from diffusion_lab.models.processors import GraphTransformerProcessor, TransformerProcessor, run_block
from diffusion_lab.models.products import keep_freed_memory

PROCESSORS = ("graphtransformer", "transformer")


class DiffusionModelEncProcDec(nn.Module):
    """Denoises the normalised next state, given past states (the guide's *state* variant).

    Variables come in a fixed order: inputs are prognostic then forcing, outputs prognostic then diagnostic.

    Args:
        graph: node types "data" and "hidden" with `node_attr`, edges as `graphs.multi_scale` makes them.
        num_input: input variables per time step.
        num_output: output variables.
        num_prognostic: how many of the outputs are inputs too.
        multistep_input: past states shown to the network.
        num_channels: width of all nodes.
        num_layers: processor blocks.
        num_heads: attention heads; divides num_channels.
        mlp_ratio: width of each MLP over num_channels.
        processor: "graphtransformer" (mesh neighbours) or "transformer" (all hidden nodes).
        sigma_data: standard deviation of the target (EDM, Table 1).
        noise_channels: width of the noise embedding.
        noise_cond_dim: width of the conditioning vector.
        max_period: see `SinusoidalEmbeddings`.
        trainable_size: learnt features per node and per edge.
        latent_skip: add the processor's input to its output.
        gradient_checkpointing: recompute blocks in the backward pass to save memory.

    Raises:
        ValueError: an impossible size or an unknown processor.
    """

    def __init__(
        self,
        graph: HeteroData,
        num_input: int,
        num_output: int,
        num_prognostic: int,
        *,
        multistep_input: int = 2,
        num_channels: int = 64,
        num_layers: int = 8,
        num_heads: int = 4,
        mlp_ratio: int = 4,
        processor: str = "graphtransformer",
        sigma_data: float = 1.0,
        noise_channels: int = 32,
        noise_cond_dim: int = 16,
        max_period: float = 1000.0,
        trainable_size: int = 8,
        latent_skip: bool = True,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if num_prognostic > min(num_input, num_output):
            raise ValueError(f"num_prognostic = {num_prognostic} exceeds {num_input = } or {num_output = }")
        if processor not in PROCESSORS:
            raise ValueError(f"processor must be one of {PROCESSORS}, got {processor!r}")
        keep_freed_memory()
        # All of the arguments but the graph, so that a checkpoint can build the model again.
        self.arguments: dict[str, int | float | str | bool] = {
            "num_input": num_input,
            "num_output": num_output,
            "num_prognostic": num_prognostic,
            "multistep_input": multistep_input,
            "num_channels": num_channels,
            "num_layers": num_layers,
            "num_heads": num_heads,
            "mlp_ratio": mlp_ratio,
            "processor": processor,
            "sigma_data": sigma_data,
            "noise_channels": noise_channels,
            "noise_cond_dim": noise_cond_dim,
            "max_period": max_period,
            "trainable_size": trainable_size,
            "latent_skip": latent_skip,
            "gradient_checkpointing": gradient_checkpointing,
        }
        self.num_output, self.num_prognostic = num_output, num_prognostic
        self.multistep_input, self.sigma_data = multistep_input, sigma_data
        self.latent_skip, self.gradient_checkpointing = latent_skip, gradient_checkpointing
        self.data_nodes = NodeFeatures(graph["data"].node_attr, trainable_size)
        self.hidden_nodes = NodeFeatures(graph["hidden"].node_attr, trainable_size)

        def edges(source: str, target: str) -> EdgeFeatures:
            store = graph[source, "to", target]
            return EdgeFeatures(store.edge_index, store.edge_attr, graph[target].num_nodes, trainable_size)

        self.encoder_edges, self.decoder_edges = edges("data", "hidden"), edges("hidden", "data")
        self.conditioning = NoiseConditioning(noise_channels, noise_cond_dim, max_period)
        self.embed_state = nn.Linear(multistep_input * num_input + self.data_nodes.width, num_channels)
        self.embed_noised = nn.Linear(num_output, num_channels, bias=False)
        self.embed_hidden = nn.Linear(self.hidden_nodes.width, num_channels)
        sizes = (num_channels, num_heads, mlp_ratio, noise_cond_dim)
        self.encoder = GraphTransformerBlock(*sizes, self.encoder_edges.width, bipartite=True)
        if processor == "graphtransformer":
            self.processor = GraphTransformerProcessor(
                edges("hidden", "hidden"), num_layers, *sizes, gradient_checkpointing
            )
        else:
            self.processor = TransformerProcessor(num_layers, *sizes, gradient_checkpointing)
        self.decoder = GraphTransformerBlock(*sizes, self.decoder_edges.width, bipartite=True)
        self.output_norm = ConditionalLayerNorm(num_channels, noise_cond_dim)
        self.output = nn.Linear(num_channels, num_output)
        # F = 0 at the start: D is then c_skip·y, and the expected loss is 1 at every σ (EDM, Appendix B.6).
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def denoiser(self, x: Tensor) -> EDMDenoiser:
        """Bind the past states x (batch, time, ensemble, grid, input variable), normalised.

        Returns a Denoiser D(y, σ) ≈ E[target | y, x] of y (batch, 1, ensemble, grid, output variable).
        What depends on x alone is computed here, once per trajectory.
        """
        return EDMDenoiser(partial(self.network, self.embed(x)), self.sigma_data)

    def forward(self, x: Tensor, y: Tensor, sigma: Tensor) -> Tensor:
        """D(y; σ, x) for noise levels σ of shape (batch, 1, ensemble, 1, 1); shapes as `denoiser`."""
        return self.denoiser(x)(y, sigma)

    def embed(self, x: Tensor) -> Tensor:
        """Embed past states x (batch, time, ensemble, grid, variable) as (batch, ensemble, grid, channel).

        Raises:
            ValueError: x has another number of past states or variables.
        """
        expected = (self.multistep_input, self.arguments["num_input"])
        if (x.shape[1], x.shape[-1]) != expected:
            raise ValueError(
                f"x must be (batch, {expected[0]} states, ensemble, grid, {expected[1]} input variables), "
                f"got {tuple(x.shape)}"
            )
        state = x.movedim(1, 3).flatten(3)
        nodes = self.data_nodes().expand(*state.shape[:2], -1, -1)
        return self.embed_state(torch.cat([state, nodes], dim=-1))

    def network(self, state: Tensor, y: Tensor, c_noise: Tensor) -> Tensor:
        """The raw network F, of unit input and output variance.

        Args:
            state: (batch, ensemble or 1, grid, channel), from `embed`.
            y: (batch, 1, ensemble, grid, output variable), already scaled by c_in.
            c_noise: ln(σ)/4, broadcastable to (batch, 1, ensemble, 1, 1).

        Returns:
            The shape of y.
        """
        batch, _, ensemble = y.shape[:3]
        cond = self.conditioning(c_noise.expand(batch, 1, ensemble, 1, 1).reshape(-1))
        data = (state + self.embed_noised(y[:, 0])).flatten(0, 1)
        hidden = self.embed_hidden(self.hidden_nodes()).expand(len(data), -1, -1)
        hidden = run_block(
            self, self.encoder, hidden, cond, self.encoder_edges(), self.encoder_edges.neighbours, data
        )
        processed = self.processor(hidden, cond)
        hidden = processed + hidden if self.latent_skip else processed
        data = run_block(
            self, self.decoder, data, cond, self.decoder_edges(), self.decoder_edges.neighbours, hidden
        )
        return self.output(self.output_norm(data, cond)).unflatten(0, (batch, ensemble))[:, None]

    def to_target(self, state: Tensor, reference: Tensor) -> Tensor:
        """What the network denoises for a normalised next state: the state itself.

        Args:
            state: (…, grid, output variable), normalised.
            reference: the last input state, (…, grid, input variable), normalised.

        Returns:
            The shape of state.
        """
        del reference
        return state

    def to_state(self, target: Tensor, reference: Tensor) -> Tensor:
        """The inverse of `to_target`, same shapes."""
        del reference
        return target


class DiffusionTendModelEncProcDec(DiffusionModelEncProcDec):
    """Denoises the normalised *change* from the last input state (the guide's *tendency* variant).

    The target of a prognostic variable is (Δ − mean_Δ)/std_Δ with the tendency statistics of the forecast
    step; diagnostic variables have no reference and keep their state normalisation.

    Args:
        graph: as the base class.
        num_input: as the base class.
        num_output: as the base class.
        num_prognostic: as the base class.
        tendency_mean: (prognostic,) mean_Δ over the state's standard deviation, per variable.
        tendency_stdev: (prognostic,) std_Δ over the state's standard deviation, per variable.
        options: every further argument of the base class, by name.
    """

    def __init__(
        self,
        graph: HeteroData,
        num_input: int,
        num_output: int,
        num_prognostic: int,
        *,
        tendency_mean: Tensor,
        tendency_stdev: Tensor,
        **options: int | float | str | bool,
    ) -> None:
        super().__init__(graph, num_input, num_output, num_prognostic, **options)
        for name, value in {"tendency_mean": tendency_mean, "tendency_stdev": tendency_stdev}.items():
            value = torch.as_tensor(value, dtype=torch.float32)
            if value.shape != (num_prognostic,):
                raise ValueError(f"{name} must have shape ({num_prognostic},), got {tuple(value.shape)}")
            self.register_buffer(name, value)
        if not (self.tendency_stdev > 0).all():
            raise ValueError(f"tendency_stdev must be positive, got {self.tendency_stdev.tolist()}")

    def to_target(self, state: Tensor, reference: Tensor) -> Tensor:
        """(state − reference − mean_Δ)/std_Δ for prognostic variables; shapes as the base class."""
        n = self.num_prognostic
        tendency = (state[..., :n] - reference[..., :n] - self.tendency_mean) / self.tendency_stdev
        return torch.cat([tendency, state[..., n:]], dim=-1)

    def to_state(self, target: Tensor, reference: Tensor) -> Tensor:
        """target·std_Δ + mean_Δ + reference for prognostic variables; shapes as the base class."""
        n = self.num_prognostic
        state = target[..., :n] * self.tendency_stdev + self.tendency_mean + reference[..., :n]
        return torch.cat([state, target[..., n:]], dim=-1)
