"""The forecaster network: data nodes → hidden nodes → data nodes, preconditioned as in EDM.

Shapes at the boundary are (batch, time, ensemble, grid, variable); inside, (batch·ensemble, node, channel).
The whole batch shares the graph, and the noise level is one vector per sample.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from diffusion_lab.denoisers import EDMDenoiser
from diffusion_lab.models.architecture import Architecture
from diffusion_lab.models.blocks import GraphTransformerBlock, run_block
from diffusion_lab.models.embeddings import NoiseConditioning
from diffusion_lab.models.graph_features import EdgeFeatures, NodeFeatures
from diffusion_lab.models.normalization import ConditionalLayerNorm
from diffusion_lab.models.processors import GraphTransformerProcessor, TransformerProcessor

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData


class DiffusionModelEncProcDec(nn.Module):
    """Denoises the normalised next state, given past states (the guide's *state* variant).

    Variables come in a fixed order: inputs are prognostic then forcing, outputs prognostic then diagnostic.

    Args:
        graph: node types "data" and "hidden" with `node_attr`, edges as `graphs.multi_scale` makes them.
        num_input: input variables per time step.
        num_output: output variables.
        num_prognostic: how many of the outputs are inputs too.
        architecture: sizes and switches.

    Raises:
        ValueError: num_prognostic is larger than num_input or num_output.
    """

    def __init__(
        self,
        graph: HeteroData,
        num_input: int,
        num_output: int,
        num_prognostic: int,
        architecture: Architecture,
    ) -> None:
        super().__init__()
        if num_prognostic > min(num_input, num_output):
            raise ValueError(f"num_prognostic = {num_prognostic} exceeds {num_input = } or {num_output = }")
        self.num_input, self.num_output, self.num_prognostic = num_input, num_output, num_prognostic
        self.architecture, self.sigma_data = architecture, architecture.sigma_data
        self.multistep_input = architecture.multistep_input
        channels, trainable_size = architecture.num_channels, architecture.trainable_size
        self.data_nodes = NodeFeatures(graph["data"].node_attr, trainable_size)
        self.hidden_nodes = NodeFeatures(graph["hidden"].node_attr, trainable_size)

        def edges(source: str, target: str) -> EdgeFeatures:
            store = graph[source, "to", target]
            return EdgeFeatures(store.edge_index, store.edge_attr, graph[target].num_nodes, trainable_size)

        self.encoder_edges, self.decoder_edges = edges("data", "hidden"), edges("hidden", "data")
        self.conditioning = NoiseConditioning(
            architecture.noise_channels, architecture.noise_cond_dim, architecture.max_period
        )
        self.embed_state = nn.Linear(self.multistep_input * num_input + self.data_nodes.width, channels)
        self.embed_noised = nn.Linear(num_output, channels, bias=False)
        self.embed_hidden = nn.Linear(self.hidden_nodes.width, channels)
        self.encoder = GraphTransformerBlock(architecture, self.encoder_edges.width, bipartite=True)
        self.processor: GraphTransformerProcessor | TransformerProcessor
        if architecture.processor == "graphtransformer":
            self.processor = GraphTransformerProcessor(architecture, edges("hidden", "hidden"))
        else:
            self.processor = TransformerProcessor(architecture)
        self.decoder = GraphTransformerBlock(architecture, self.decoder_edges.width, bipartite=True)
        self.output_norm = ConditionalLayerNorm(channels, architecture.noise_cond_dim)
        self.output = nn.Linear(channels, num_output)
        # F = 0 at the start: D is then c_skip·y, and the expected loss is 1 at every σ (EDM, Appendix B.6).
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    @property
    def arguments(self) -> dict[str, int | float | str | bool]:
        """The counts of variables and the fields of the architecture: what a release file keeps."""
        counts = ("num_input", "num_output", "num_prognostic")
        return {name: getattr(self, name) for name in counts} | asdict(self.architecture)

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
        expected = (self.multistep_input, self.num_input)
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
        recompute = self.architecture.gradient_checkpointing and self.training
        cond = self.conditioning(c_noise.expand(batch, 1, ensemble, 1, 1).reshape(-1))
        data = (state + self.embed_noised(y[:, 0])).flatten(0, 1)
        hidden = self.embed_hidden(self.hidden_nodes()).expand(len(data), -1, -1)
        edges = self.encoder_edges
        hidden = run_block(self.encoder, hidden, cond, edges(), edges.neighbours, data, recompute=recompute)
        processed = self.processor(hidden, cond)
        hidden = processed + hidden if self.architecture.latent_skip else processed
        edges = self.decoder_edges
        data = run_block(self.decoder, data, cond, edges(), edges.neighbours, hidden, recompute=recompute)
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
        architecture: as the base class.
        tendency_mean: (prognostic,) mean_Δ over the state's standard deviation, per variable.
        tendency_stdev: (prognostic,) std_Δ over the state's standard deviation, per variable.

    Raises:
        ValueError: as the base class, or scales of another shape or not positive.
    """

    tendency_mean: Tensor
    tendency_stdev: Tensor

    def __init__(
        self,
        graph: HeteroData,
        num_input: int,
        num_output: int,
        num_prognostic: int,
        architecture: Architecture,
        *,
        tendency_mean: Tensor,
        tendency_stdev: Tensor,
    ) -> None:
        super().__init__(graph, num_input, num_output, num_prognostic, architecture)
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
