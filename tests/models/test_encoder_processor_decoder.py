import math

import pytest
import torch
from torch import nn

from diffusion_lab.denoisers import edm_coefficients
from diffusion_lab.models import (
    Architecture,
    ConditionalLayerNorm,
    DiffusionModelEncProcDec,
    DiffusionTendModelEncProcDec,
)
from diffusion_lab.objectives import DiffusionObjective

CELLS, INPUT, OUTPUT, PROGNOSTIC, STEPS = 288, 4, 3, 2, 2
BOTH = pytest.mark.parametrize("processor", ["graphtransformer", "transformer"])


@pytest.fixture
def make(toy_graph, tiny, perturb):
    """Builds a tiny network, by default with no parameter left at its start."""

    def make(perturbed=True, **options):
        torch.manual_seed(1)
        architecture = Architecture(**(tiny | options))
        model = DiffusionModelEncProcDec(toy_graph, INPUT, OUTPUT, PROGNOSTIC, architecture)
        return perturb(model) if perturbed else model

    return make


def inputs(batch, ensemble, seed=0):
    """Past states, noised target and levels."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, STEPS, ensemble, CELLS, INPUT, generator=generator)
    y = torch.randn(batch, 1, ensemble, CELLS, OUTPUT, generator=generator)
    return x, y, torch.rand(batch, 1, ensemble, 1, 1, generator=generator) * 3 + 0.1


@BOTH
def test_samples_and_members_do_not_see_each_other(make, processor):
    model, (x, y, sigma) = make(processor=processor), inputs(2, 3)
    together = model(x, y, sigma)
    assert together.std() > 0.1
    for b in range(2):
        for e in range(3):
            one = (slice(b, b + 1), slice(None), slice(e, e + 1))
            torch.testing.assert_close(together[one], model(x[one], y[one], sigma[one]), atol=1e-5, rtol=0)


def test_one_input_state_serves_all_members(make):
    model, (x, y, sigma) = make(), inputs(2, 3)
    shared = model(x[:, :, :1], y, sigma)
    torch.testing.assert_close(shared, model(x[:, :, :1].expand_as(x), y, sigma), atol=1e-5, rtol=0)


@BOTH
def test_denoiser_is_forward(make, processor):
    model, (x, y, _) = make(processor=processor), inputs(2, 2)
    level = torch.tensor(1.7, dtype=torch.float64)
    sampled = model.denoiser(x)(y.double(), level)
    assert sampled.dtype == torch.float64
    trained = model(x, y, level.float().expand(2, 1, 2, 1, 1))
    torch.testing.assert_close(sampled.float(), trained, atol=1e-5, rtol=0)


def test_denoiser_is_the_preconditioned_network(make):
    model, (x, y, _) = make(sigma_data=0.5), inputs(1, 2)
    # σ = 2, σ_data = 0.5: c_skip = 1/17, c_out = 1/√4.25, c_in = 1/√4.25, c_noise = ln(2)/4.
    root = 4.25**-0.5
    raw = model.network(model.embed(x), root * y, torch.tensor(math.log(2) / 4))
    expected = y / 17 + root * raw
    torch.testing.assert_close(model(x, y, torch.full((1, 1, 2, 1, 1), 2.0)), expected, atol=1e-5, rtol=0)


def test_inputs_are_laid_out_state_after_state(make):
    """The order that released weights rely on: all variables of the oldest state first, then the next."""
    model, (x, _, _) = make(), inputs(2, 1)
    with torch.no_grad():
        model.embed_state.weight.zero_()
        model.embed_state.bias.zero_()
        for channel in range(STEPS * INPUT):
            model.embed_state.weight[channel, channel] = 1
    embedded = model.embed(x)
    for time in range(STEPS):
        for variable in range(INPUT):
            assert torch.equal(embedded[..., time * INPUT + variable], x[:, time, ..., variable])


@pytest.mark.parametrize("sigma", [0.02, 1.0, 100.0])
def test_expected_loss_of_an_untrained_network_is_one(make, sigma):
    model, objective = make(perturbed=False), DiffusionObjective()
    target = torch.randn(4, 1, 4, CELLS, OUTPUT)
    level = torch.full((4, 1, 4, 1, 1), sigma)
    y = target + sigma * torch.randn(target.shape)
    x = torch.randn(4, STEPS, 1, CELLS, INPUT)
    denoised = model(x, y, level)
    torch.testing.assert_close(denoised, y / (1 + sigma**2))  # F = 0 leaves c_skip·y
    loss = (objective.pre_loss_weights(level) * (denoised - target) ** 2).mean().item()
    # λ(D - target)² is the square of a unit Gaussian: variance 2 each.
    assert loss == pytest.approx(1.0, abs=4 * math.sqrt(2 / target.numel()))


@BOTH
def test_noise_level_reaches_every_normalisation(make, perturb, processor):
    """Blind to σ at the start (zero-initialised); each layer alone, once moved, makes the output follow σ."""
    torch.manual_seed(2)
    model = make(perturbed=False, processor=processor)
    perturb(model.output)
    x, y, _ = inputs(1, 1)
    state, c_noise = model.embed(x), torch.tensor([-0.9, 0.9]).view(1, 1, 2, 1, 1)

    @torch.no_grad()
    def response():
        low, high = model.network(state, y.expand(-1, -1, 2, -1, -1), c_noise).unbind(2)
        return (high - low).abs().max().item()

    assert response() == 0
    norms = {name: m for name, m in model.named_modules() if isinstance(m, ConditionalLayerNorm)}
    assert len(norms) == 3 + 2 * 2 + 3 + 1  # encoder, two processor blocks, decoder, output
    for name, norm in norms.items():
        for linear in (norm.scale, norm.bias):
            torch.nn.init.normal_(linear.weight)
            assert response() > 1e-5, name
            torch.nn.init.zeros_(linear.weight)


@BOTH
def test_gradient_checkpointing_recomputes_and_changes_nothing(make, processor):
    gradients, calls = [], []
    for checkpointing in (False, True):
        model = make(processor=processor, gradient_checkpointing=checkpointing)
        x, y, sigma = inputs(2, 1)
        calls.append(0)

        def count(*_):
            calls[-1] += 1

        for block in (model.encoder, *model.processor.blocks, model.decoder):
            block.register_forward_pre_hook(count)
        model(x, y, sigma).square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert calls == [4, 8]
    for name, gradient in gradients[0].items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_a_third_of_a_turn_turns_the_forecast(make):
    """Mesh, grid and edges map onto themselves by 120°; so must the network, once blind to the longitude."""
    model = make()
    with torch.no_grad():
        for nodes, linear, first in [
            (model.data_nodes, model.embed_state, STEPS * INPUT),
            (model.hidden_nodes, model.embed_hidden, 0),
        ]:
            nodes.trainable.zero_()
            linear.weight[:, first + 2 : first + 4] = 0  # sine and cosine of the longitude
        for edges in (model.encoder_edges, model.decoder_edges, model.processor.edges):
            edges.trainable.zero_()

    def turned(field):
        return field.unflatten(-2, (12, 24)).roll(8, -2).flatten(-3, -2)

    x, y, sigma = inputs(1, 1)
    result = model(x, y, sigma)
    assert (turned(result) - result).abs().max() > 0.5
    torch.testing.assert_close(model(turned(x), turned(y), sigma), turned(result), atol=2e-4, rtol=0)


def test_arguments_rebuild_the_network(make, toy_graph):
    model = make(processor="transformer", latent_skip=False, noise_channels=6, noise_cond_dim=5)
    counts = {name: model.arguments[name] for name in ("num_input", "num_output", "num_prognostic")}
    rest = {name: value for name, value in model.arguments.items() if name not in counts}
    again = DiffusionModelEncProcDec(toy_graph, **counts, architecture=Architecture(**rest))
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again(*inputs(1, 1)), model(*inputs(1, 1)))


def test_latent_skip_adds_the_input_of_the_processor(make):
    with_skip, without = make(latent_skip=True), make(latent_skip=False)
    for model in (with_skip, without):
        model.processor.forward = lambda hidden, cond: 0 * hidden
    x, y, sigma = inputs(1, 1)
    changed = (with_skip(x, y, sigma) - without(x, y, sigma)).abs().max()
    without.processor.forward = lambda hidden, cond: hidden
    torch.testing.assert_close(with_skip(x, y, sigma), without(x, y, sigma))
    assert changed > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"processor": "mamba"},
            r"processor must be one of \('graphtransformer', 'transformer'\), got 'mamba'",
        ),
        ({"num_heads": 3}, "num_heads = 3 does not divide num_channels = 16"),
        ({"num_layers": 0}, "num_layers must be at least 1, got 0"),
        ({"trainable_size": -1}, "trainable_size must be at least 0, got -1"),
        ({"noise_channels": 5}, "even and at least 2, got 5"),
    ],
)
def test_impossible_arguments_are_refused(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_wrong_shapes_are_refused(make, toy_graph, tiny):
    x, y, sigma = inputs(1, 2)
    with pytest.raises(ValueError, match=r"x must be \(batch, 2 states"):
        make()(x[:, :1], y, sigma)
    with pytest.raises(ValueError, match="sigma has shape"):
        make()(x, y, sigma[:, 0])
    with pytest.raises(ValueError, match="num_prognostic = 4 exceeds"):
        DiffusionModelEncProcDec(toy_graph, INPUT, OUTPUT, 4, Architecture(**tiny))


def tendency_model(toy_graph, tiny, mean, stdev):
    return DiffusionTendModelEncProcDec(
        toy_graph,
        INPUT,
        OUTPUT,
        PROGNOSTIC,
        Architecture(**tiny),
        tendency_mean=torch.tensor(mean),
        tendency_stdev=torch.tensor(stdev),
    )


def test_tendency_by_hand_with_a_diagnostic_variable(toy_graph, tiny):
    model = tendency_model(toy_graph, tiny, [0.5, -1.0], [2.0, 0.1])
    state = torch.tensor([3.0, 1.0, 9.0])  # two prognostic, one diagnostic
    reference = torch.tensor([1.0, 0.5, 77.0, 88.0])  # two prognostic, two forcings
    target = torch.tensor([(3 - 1 - 0.5) / 2, (1 - 0.5 + 1) / 0.1, 9.0])
    torch.testing.assert_close(model.to_target(state, reference), target)
    torch.testing.assert_close(model.to_state(target, reference), state)


def test_tendency_round_trip(toy_graph, tiny):
    model = tendency_model(toy_graph, tiny, [0.01, -0.02], [0.3, 0.05])
    state, reference = torch.randn(2, 1, 3, CELLS, OUTPUT), torch.randn(2, 1, 1, CELLS, INPUT)
    target = model.to_target(state, reference)
    torch.testing.assert_close(model.to_state(target, reference), state, atol=1e-6, rtol=0)
    assert (target[..., :PROGNOSTIC] - state[..., :PROGNOSTIC]).abs().min() > 0
    torch.testing.assert_close(target[..., PROGNOSTIC:], state[..., PROGNOSTIC:], rtol=0, atol=0)


def test_state_model_predicts_states(make):
    state, reference = torch.randn(2, OUTPUT), torch.randn(2, INPUT)
    assert make().to_target(state, reference) is state
    assert make().to_state(state, reference) is state


@pytest.mark.parametrize(
    ("mean", "stdev", "message"),
    [
        ([0.0], [1.0, 1.0], r"tendency_mean must have shape \(2,\), got \(1,\)"),
        ([0.0, 0.0], [1.0, 0.0], r"tendency_stdev must be positive, got \[1.0, 0.0\]"),
    ],
)
def test_impossible_tendency_scales_are_refused(toy_graph, tiny, mean, stdev, message):
    with pytest.raises(ValueError, match=message):
        tendency_model(toy_graph, tiny, mean, stdev)


def test_tendency_scales_are_kept_with_the_weights(toy_graph, tiny):
    kept = tendency_model(toy_graph, tiny, [0.01, -0.02], [0.3, 0.05]).state_dict()
    torch.testing.assert_close(kept["tendency_stdev"], torch.tensor([0.3, 0.05]))


def test_float64_levels_keep_their_precision_at_small_sigma(make):
    """At σ = 1e-6, 1 - c_skip = 1e-12, which float32 cannot hold: D must be y to 1e-12 before F acts."""
    model, (x, y, _) = make(perturbed=False), inputs(1, 1)
    sigma = torch.tensor(1e-6, dtype=torch.float64)
    denoised = model.denoiser(x)(y.double(), sigma)
    c_skip = edm_coefficients(sigma, 1.0)[0]
    torch.testing.assert_close(denoised, c_skip * y.double(), rtol=1e-15, atol=0)


@BOTH
def test_half_precision_is_near_the_full_one(make, processor):
    """bfloat16 keeps 8 bits, 0.4 % of a value: the matrix products in it err by a few of those."""
    model, tensors = make(processor=processor), inputs(2, 2)
    full = model(*tensors)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(*tensors)
    assert half.dtype == torch.float32
    error = (half - full).square().mean().sqrt() / full.std()
    assert 1e-5 < error < 0.02


@BOTH
def test_every_linear_map_and_norm_is_called(make, processor):
    """So hooks, probes, adapters and quantisation reach all of them; there is no way around a module."""
    model, heard = make(processor=processor), set()
    kinds = (nn.Linear, nn.LayerNorm, ConditionalLayerNorm)
    parts = {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
    for name, part in parts.items():
        part.register_forward_hook(lambda *_, name=name: heard.add(name))
    model(*inputs(1, 1))
    assert heard == set(parts)
    # Of a block: linear maps, those of the MLP, norms of queries and keys, conditional norms of three each.
    graph, full = 4 + 2 + 2 + 2 * 3, 2 + 2 + 2 + 2 * 3
    blocks = 2 * (graph + 3) + 2 * {"graphtransformer": graph, "transformer": full}[processor]
    assert len(parts) == blocks + 2 + 3 + 3 + 1  # the level's MLP, three embeddings, output norm, output
