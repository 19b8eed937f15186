"""Run by `test_anemoi_models.py`, in an environment that has anemoi-models and anemoi-graphs beside us.

The models are real ones, of seeded random weights, on a graph that anemoi-graphs made. The store's variables
stand in an order that is not ours: a forcing first, a diagnostic variable in the middle.
"""

import itertools

import numpy as np
import pytest
import torch
from anemoi.graphs.create import GraphCreator
from anemoi.models.data_indices.collection import IndexCollection
from anemoi.models.interface import AnemoiModelInterface
from anemoi.models.samplers import diffusion_samplers
from anemoi.models.samplers.diffusion_samplers import EDMHeunSampler, KarrasScheduler
from anemoi.utils.config import DotDict
from omegaconf import OmegaConf
from torch_geometric.data import HeteroData

from diffusion_lab.denoisers import CallCounter
from diffusion_lab.inference.anemoi import from_anemoi
from diffusion_lab.making import StoreMetadata, Variable, create_store
from diffusion_lab.noise import MemberNoise
from diffusion_lab.samplers import SAMPLERS, dpmpp_2m, heun, sample
from diffusion_lab.schedules import karras
from diffusion_lab.verification.protocol import score
from diffusion_lab.widgets import DenoiserProbe, SamplerTuner

THEIRS_IN = ["orography", "t850", "msl", "cos_julian_day"]
THEIRS_OUT = ["t850", "tp", "msl"]
OURS_IN = ["t850", "msl", "orography", "cos_julian_day"]
OURS_OUT = ["t850", "msl", "tp"]
DAYS, CHANNELS = 40, 16
VARIANTS = list(itertools.product(("state", "tendency"), ("graphtransformer", "transformer")))


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    rng = np.random.default_rng(5)
    latitudes, longitudes = np.repeat(90 - 22.5 * (np.arange(8) + 0.5), 16), np.tile(22.5 * np.arange(16), 8)
    fields = rng.normal(size=(DAYS, 5, 128)).cumsum(0) * np.array([0.0, 2.0, 0.01, 200.0, 0.0])[:, None]
    fields += np.array([0.0, 280.0, 1.0, 1e5, 0.0])[:, None]
    fields[:, 0] = 1000 * np.cos(np.deg2rad(longitudes)) + 1500
    fields[:, 4] = np.cos(2 * np.pi * np.arange(DAYS) / 365.25)[:, None]
    metadata = StoreMetadata(
        [
            Variable("orography", "m", "forcing", constant_in_time=True),
            Variable("t850", "K", long_name="temperature at 850 hPa"),
            Variable("tp", "kg m-2", "diagnostic"),
            Variable("msl", "Pa"),
            Variable("cos_julian_day", "1", "forcing", computed_forcing=True),
        ],
        np.datetime64("2024-01-01", "s") + np.arange(DAYS) * np.timedelta64(1, "D"),
        latitudes,
        longitudes,
        (8, 16),
        "22.5",
        statistics_window=("2024-01-01", "2024-01-30"),
    )
    path = tmp_path_factory.mktemp("peer") / "peer.zarr"
    return create_store(path, metadata, lambda times: fields[times].astype(np.float32))


@pytest.fixture(scope="session")
def graph(store):
    """Their data nodes at the store's cells, 42 hidden ones, all edges theirs."""
    scaled = {"_target_": "anemoi.graphs.edges.attributes.EdgeLength", "norm": "unit-std"}
    turned = {"_target_": "anemoi.graphs.edges.attributes.EdgeDirection", "norm": "unit-std"}

    def edges(source, target, builder, **options):
        return {
            "source_name": source,
            "target_name": target,
            "edge_builders": [{"_target_": f"anemoi.graphs.edges.{builder}", **options}],
            "attributes": {"edge_length": scaled, "edge_dirs": turned},
        }

    config = {
        "nodes": {"hidden": {"node_builder": {"_target_": "anemoi.graphs.nodes.TriNodes", "resolution": 1}}},
        "edges": [
            edges("data", "hidden", "CutOffEdges", cutoff_factor=0.8),
            edges("hidden", "hidden", "MultiScaleEdges", x_hops=1),
            edges("hidden", "data", "KNNEdges", num_nearest_neighbours=3),
        ],
    }
    graph = HeteroData()
    radians = np.deg2rad(np.stack([store.latitudes, store.longitudes], axis=1))
    graph["data"].x = torch.tensor(radians, dtype=torch.float32)
    graph["data"].node_type = "LatLonNodes"
    creator = GraphCreator(DotDict(config))
    return creator.clean(creator.update_graph(graph))


def config_of(variant, processor, **model):
    name = {"state": "AnemoiDiffusionModelEncProcDec", "tendency": "AnemoiDiffusionTendModelEncProcDec"}
    kernels = {
        "LayerNorm": {
            "_target_": "anemoi.models.layers.normalization.ConditionalLayerNorm",
            "normalized_shape": CHANNELS,
            "condition_shape": 16,
            "zero_init": True,
            "autocast": False,
        },
        "Linear": {"_target_": "torch.nn.Linear"},
        "Activation": {"_target_": "torch.nn.GELU"},
    }
    shared = {
        "num_chunks": 1,
        "mlp_hidden_ratio": 2,
        "num_heads": 2,
        "qk_norm": True,
        "layer_kernels": kernels,
    }
    on_edges = {
        "trainable_size": 3,
        "sub_graph_edge_attributes": ["edge_length", "edge_dirs"],
        "graph_attention_backend": "pyg",
    }
    processors = {
        "graphtransformer": {
            "_target_": "anemoi.models.layers.processor.GraphTransformerProcessor",
            **on_edges,
        },
        "transformer": {
            "_target_": "anemoi.models.layers.processor.TransformerProcessor",
            "attention_implementation": "scaled_dot_product_attention",
            "sub_graph_edge_attributes": ["edge_length", "edge_dirs"],
        },
    }
    mapper = "anemoi.models.layers.mapper.GraphTransformer{}Mapper"
    return DotDict(
        {
            "data": {
                "timestep": "1d",
                "datasets": {
                    "data": {
                        "processors": {
                            "normalizer": {
                                "_target_": "anemoi.models.preprocessing.normalizer.InputNormalizer",
                                "config": {
                                    "default": "mean-std",
                                    "std": ["tp"],
                                    "max": ["orography"],
                                    "none": ["cos_julian_day"],
                                },
                            }
                        }
                    }
                },
            },
            "training": {"multistep_input": 2, "multistep_output": 1},
            "model": {
                "num_channels": CHANNELS,
                "condition_on_residual": False,
                "trainable_parameters": {"data": 3, "hidden": 3},
                "residual": {"_target_": "anemoi.models.layers.residual.SkipConnection", "step": -1},
                "bounding": [],
                "encoder": {"_target_": mapper.format("Forward"), **shared, **on_edges},
                "decoder": {"_target_": mapper.format("Backward"), **shared, **on_edges},
                "processor": {"num_layers": 1, **shared, **processors[processor]},
                "model": {
                    "_target_": f"anemoi.models.models.{name[variant]}",
                    "hidden_nodes_name": "hidden",
                    "latent_skip": True,
                    "diffusion": {
                        "sigma_data": 1.0,
                        "noise_channels": 32,
                        "noise_cond_dim": 16,
                        "sigma_max": 100.0,
                        "sigma_min": 0.02,
                        "rho": 7.0,
                        "noise_embedder": {
                            "_target_": "anemoi.models.layers.diffusion.SinusoidalEmbeddings",
                            "num_channels": 32,
                            "max_period": 1000,
                        },
                        "inference_defaults": {
                            "noise_scheduler": {
                                "schedule_type": "karras",
                                "sigma_max": 100.0,
                                "sigma_min": 0.02,
                                "rho": 7.0,
                                "num_steps": 20,
                            },
                            "diffusion_sampler": {"sampler": "heun", "S_churn": 0.0},
                        },
                    },
                },
                **model,
            },
        }
    )


def as_statistics(statistics):
    return {name: getattr(statistics, name).copy() for name in ("mean", "stdev", "minimum", "maximum")}


@pytest.fixture(scope="session")
def build(store, graph):
    """Their model behind their interface, all weights moved: what starts at zero does not stay there."""

    def built(variant, processor, **model):
        data = OmegaConf.create({"forcing": ["orography", "cos_julian_day"], "diagnostic": ["tp"]})
        indices = IndexCollection(data, {name: i for i, name in enumerate(store.variables)})
        tendencies = as_statistics(store.tendency_statistics("1d"))
        timesteps = {"relative_date_indices_training": [-1, 0, 1]}
        interface = AnemoiModelInterface(
            config=config_of(variant, processor, **model),
            graph_data=graph,
            statistics={"data": as_statistics(store.statistics)},
            statistics_tendencies={"data": tendencies} if variant == "tendency" else None,
            data_indices={"data": indices},
            metadata={"metadata_inference": {"data": {"timesteps": timesteps}}},
        )
        generator = torch.Generator().manual_seed(11)
        with torch.no_grad():
            for parameter in interface.model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        return interface.eval()

    return built


@pytest.fixture(scope="session", params=VARIANTS, ids="-".join)
def interface(request, build):
    return build(*request.param)


@pytest.fixture
def forecaster(interface, store):
    return from_anemoi(interface, store, device="cpu")


def reordered(values, have, want):
    return values[..., [have.index(name) for name in want]]


def inputs_of(forecaster, store, start=20):
    """Two past states in physical units: ours (1, 2, 1, cell, variable) and theirs (1, 2, cell, variable)."""
    ours = torch.from_numpy(forecaster.reader(store).inputs(store.dates[[start - 1, start]]))[None]
    return ours, reordered(ours, OURS_IN, THEIRS_IN)[:, :, 0]


def test_roles_order_and_step_are_theirs(forecaster):
    variables = forecaster.variables
    assert (variables.prognostic, variables.diagnostic) == (("t850", "msl"), ("tp",))
    assert list(variables.input) == OURS_IN
    assert list(variables.output) == OURS_OUT
    assert forecaster.step == np.timedelta64(1, "D")
    assert forecaster.settings.noise_scheduler["num_steps"] == 20
    assert [v.units for v in forecaster.release.variables] == ["K", "Pa", "m", "1", "kg m-2"]


def test_normalised_as_by_their_processors(interface, forecaster, store):
    ours, theirs = inputs_of(forecaster, store)
    normalised = interface.pre_processors["data"](theirs, in_place=False)
    mine = reordered(forecaster.input_normalizer.normalise(ours), OURS_IN, THEIRS_IN)[:, :, 0]
    # Theirs is x·mul + add in float32, ours (x − mean)/stdev: 1e5 Pa in units of a few hundred.
    torch.testing.assert_close(mine, normalised, atol=2e-4, rtol=1e-5)
    outputs = torch.randn(1, 1, 1, 128, 3)
    physical = interface.post_processors["data"](reordered(outputs, OURS_OUT, THEIRS_OUT), in_place=False)
    mine = reordered(forecaster.output_normalizer.denormalise(outputs), OURS_OUT, THEIRS_OUT)
    torch.testing.assert_close(mine, physical, atol=1e-3, rtol=2e-6)


@pytest.mark.parametrize("sigma", [0.02, 1.0, 77.0])
def test_the_same_denoiser_bit_for_bit(interface, forecaster, sigma):
    """Two samples of three members: theirs as a batch of six in their order, ours as they are."""
    x, y = torch.randn(2, 2, 3, 128, 4), sigma * torch.randn(2, 1, 3, 128, 3)
    answer = forecaster.model.denoiser(x)(y, torch.tensor(sigma, dtype=torch.float64))
    batch = [(sample, member) for sample in range(2) for member in range(3)]
    past, noised = (torch.stack([part[s, :, m] for s, m in batch])[:, :, None] for part in (x, y))
    with torch.no_grad():
        expected = interface.model.fwd_with_preconditioning(
            {"data": reordered(past, OURS_IN, THEIRS_IN)},
            {"data": reordered(noised, OURS_OUT, THEIRS_OUT)},
            {"data": torch.full((6, 1, 1, 1, 1), sigma)},
        )["data"]
    for i, (s, m) in enumerate(batch):
        assert torch.equal(answer[s, 0, m], reordered(expected[i, 0, 0], THEIRS_OUT, OURS_OUT))
    c_out = sigma / (1 + sigma**2) ** 0.5
    assert (answer - y / (1 + sigma**2)).std() > 0.2 * c_out  # the network adds something to c_skip·y


def test_a_level_for_each_member(forecaster):
    x, y = torch.randn(1, 2, 2, 128, 4), torch.randn(1, 1, 2, 128, 3)
    denoiser = forecaster.model.denoiser(x)
    both = denoiser(y, torch.tensor([0.5, 3.0]).reshape(1, 1, 2, 1, 1))
    for member, sigma in enumerate((0.5, 3.0)):
        torch.testing.assert_close(both[:, :, member], denoiser(y, torch.tensor(sigma))[:, :, member])
    with pytest.raises(ValueError, match="sigma has shape"):
        denoiser(y, torch.ones(2))


def through_their_denoiser(interface, x):
    """Their denoising function for past states in their order, as their samplers call it, and its calls."""
    calls = []

    def denoise(x, y, sigma, *_):
        calls.append(sigma["data"].flatten()[0].item())
        with torch.no_grad():
            return interface.model.fwd_with_preconditioning(x, y, sigma)

    return denoise, calls


@pytest.mark.parametrize("churn", [0.0, 2.5])
def test_our_heun_is_theirs_once_the_zero_is_appended(interface, forecaster, monkeypatch, churn):
    x, start = torch.randn(1, 2, 1, 128, 4), torch.randn(1, 1, 1, 128, 3, dtype=torch.float64)
    draws = torch.randn(20, 1, 1, 1, 128, 3, dtype=torch.float64)
    options = {"S_churn": churn, "S_min": 0.75, "S_max": 90.0, "S_noise": 1.05}
    levels = karras(20, sigma_max=90.0, sigma_min=0.03, rho=7.0)
    acting = [i for i, sigma in enumerate(levels[:-1].tolist()) if churn and 0.75 <= sigma <= 90]
    pending = iter(acting)
    monkeypatch.setattr(
        torch, "randn_like", lambda y: reordered(draws[next(pending)], OURS_OUT, THEIRS_OUT).to(y)
    )
    schedule = KarrasScheduler(sigma_max=90.0, sigma_min=0.03, num_steps=20, rho=7.0)
    theirs = schedule.get_schedule(dtype_compute=torch.float64)
    torch.testing.assert_close(theirs, levels[:-1], rtol=1e-14, atol=0)
    denoise, calls = through_their_denoiser(interface, x)
    past = {"data": reordered(x, OURS_IN, THEIRS_IN)}
    noise = {"data": 90.0 * reordered(start, OURS_OUT, THEIRS_OUT)}
    solver = EDMHeunSampler(**options, eps_prec=0.0)  # their guard against σ = 0, which Heun has no need of
    expected = solver.sample(past, noise, torch.cat([theirs, theirs.new_zeros(1)]), denoise)["data"]
    assert len(calls) == 39

    counter = CallCounter(forecaster.model.denoiser(x))
    ours = sample(heun, counter, 90.0 * start, levels, noise=lambda draw: draws[draw - 1], **options)
    assert counter.calls == 39
    assert next(pending, None) is None
    # Their answers are float32: one that rounds the other way is 1e-7 off, and later levels see it.
    torch.testing.assert_close(ours.float(), reordered(expected, THEIRS_OUT, OURS_OUT), rtol=1e-5, atol=1e-5)


def test_their_sampling_ends_before_zero(interface):
    """What the zero is for: by themselves they stop at sigma_min, after 38 calls for 20 steps."""
    denoise, calls = through_their_denoiser(interface, None)
    x = {"data": torch.randn(1, 2, 1, 128, 4)}
    schedule = KarrasScheduler(sigma_max=100.0, sigma_min=0.02, num_steps=20).get_schedule()
    EDMHeunSampler().sample(x, {"data": 100 * torch.randn(1, 1, 1, 128, 3)}, schedule, denoise)
    assert len(calls) == 38
    assert schedule[-1].item() == pytest.approx(0.02)


def test_their_dpmpp_2m_extrapolates_backwards():
    """Why our sampler of that name is not compared with theirs: D(y, σ) = y/(1 + σ²) has a known answer."""
    levels = karras(40, sigma_max=10.0, sigma_min=0.1, rho=7.0)[:-1]
    exact = (1 + levels[-1] ** 2).sqrt() / (1 + levels[0] ** 2).sqrt()
    start = torch.ones(1, 1, 1, 1, 1, dtype=torch.float64)

    def denoise(x, y, sigma, *_):
        return {"data": y["data"] / (1 + sigma["data"] ** 2)}

    solver = diffusion_samplers.DPMpp2MSampler()
    theirs = solver.sample({"data": start}, {"data": start.clone()}, levels, denoise)["data"]
    ours = sample(dpmpp_2m, lambda y, sigma: y / (1 + sigma**2), start, levels)
    assert abs(ours / exact - 1).item() < 2e-3
    assert abs(theirs / exact - 1).item() > 5 * abs(ours / exact - 1).item()


def test_predict_step_is_theirs_in_physical_units(interface, forecaster, store, monkeypatch):
    """The whole way: normalise, sample, and for a tendency model add the change to the last state."""
    ours, theirs = inputs_of(forecaster, store)
    draw = MemberNoise(4).at(start=[0], lead=1, members=range(1), shape=(1, 128, 3))(0)
    noise = reordered(draw, OURS_OUT, THEIRS_OUT)
    monkeypatch.setattr(torch, "randn", lambda shape, device, dtype: noise.reshape(shape).to(dtype))
    scheduled = KarrasScheduler.get_schedule
    monkeypatch.setattr(
        KarrasScheduler, "get_schedule", lambda *args: torch.cat([scheduled(*args), torch.zeros(1).double()])
    )
    with pytest.warns(UserWarning, match="config"):
        expected = interface.predict_step({"data": theirs}, noise_scheduler_params={"num_steps": 10})["data"]
    monkeypatch.undo()
    mine = forecaster.predict_step(ours, {"num_steps": 10}, seed=4)
    for name, tolerance in {"t850": 2e-3, "msl": 0.2, "tp": 2e-5}.items():
        there, here = expected[0, 0, 0, :, THEIRS_OUT.index(name)], mine[0, 0, 0, :, OURS_OUT.index(name)]
        torch.testing.assert_close(here, there, atol=tolerance, rtol=0)
        assert there.std() > 100 * tolerance


def test_a_target_is_what_leads_to_its_state(forecaster):
    state, x = torch.randn(2, 1, 3, 128, 3), torch.randn(2, 1, 3, 128, 4)
    target = forecaster.model.to_target(state, x)
    torch.testing.assert_close(forecaster.model.to_state(target, x), state)
    assert torch.equal(target, state) != hasattr(forecaster.model, "tendency_mean")


def test_its_denoiser_can_be_probed(forecaster, store):
    """Our widget, on their network: it denoises the next day, or the change to it, normalised as theirs."""
    probe = DenoiserProbe(forecaster)
    probe.set(date="2024-01-21", variable="msl", sigma=0.02)
    column, today = store.variables.index("msl"), store.index("2024-01-21")
    now, then = store.read(slice(today, today + 2), ["msl"])[:, 0, 0]
    values, statistics = then, store.statistics
    if hasattr(forecaster.model, "tendency_mean"):
        values, statistics = then - now, store.tendency_statistics("1d")
    clean = (values - statistics.mean[column]) / statistics.stdev[column]
    np.testing.assert_allclose(probe.fields["clean"], clean, atol=1e-3)
    assert 0.01 < np.std(probe.fields["noisy"] - clean) < 0.03
    assert np.std(probe.fields["denoised"] - clean) < 0.1  # little noise leaves little to do


def test_its_sampler_can_be_tuned(forecaster):
    settings = {"steps": 1, "members": 2, "num_steps": 4, "S_churn": 1.0}
    tuner = SamplerTuner(forecaster, date="2024-01-21", members_per_call=2, **settings)
    tuned = tuner.run(60)
    kwargs = tuner.setting.predict_kwargs
    assert kwargs["noise_scheduler_params"]["num_steps"] == 4
    alone = forecaster.forecast("2024-01-21", 1, 2, tuner.setting.seed, members_per_call=2, **kwargs)
    np.testing.assert_array_equal(tuned["msl"], alone["msl"])
    tuner.stop()
    assert tuner.wait_idle(60)


def test_every_sampler_makes_a_scored_forecast(build, store):
    """All but those that add noise solve one equation, and agree as far as 15 steps go."""
    forecaster, first = from_anemoi(build("tendency", "transformer"), store, device="cpu"), {}
    for name in SAMPLERS:
        options = {"sampler": name}
        run = forecaster.forecast("2024-01-21", 1, 2, 3, None, {"num_steps": 15}, options)
        first[name] = run["t850"].values
        assert np.isfinite(first[name]).all()
    stochastic = {"euler_ancestral", "dpmpp_2m_sde"}
    spread = np.std(first["heun"][0, 0] - first["heun"][0, 1])
    for name in SAMPLERS.keys() - stochastic:
        assert np.std(first[name] - first["heun"]) < 0.2 * spread  # Euler is of first order
    assert float(score(run, store)["fair_crps"].sel(variable="t850").isel(lead_time=0)) > 0


def test_a_checkpoint_is_a_pickle_and_asks_for_trust(build, store, tmp_path):
    path = tmp_path / "inference-last.ckpt"
    interface = build("tendency", "graphtransformer")
    torch.save(interface, path)
    with pytest.raises(ValueError, match=r"is a pickle: loading it runs whatever code.*trust=True"):
        from_anemoi(path, store)
    with pytest.raises(FileNotFoundError, match="no Anemoi checkpoint"):
        from_anemoi(tmp_path / "none.ckpt", store, trust=True)
    loaded = from_anemoi(path, store, device="cpu", trust=True)
    direct = from_anemoi(interface, store, device="cpu")
    start, settings = "2024-01-21", {"num_steps": 3}
    one, two = (f.forecast(start, 2, 2, noise_scheduler_params=settings) for f in (loaded, direct))
    assert one.identical(two)


def test_what_cannot_be_forecast_is_refused(build, store, toy_store):
    interface = build("state", "graphtransformer")
    with pytest.raises(ValueError, match="takes an AnemoiModelInterface, got a Linear"):
        from_anemoi(torch.nn.Linear(1, 1), store)
    with pytest.raises(ValueError, match=r"trained on other cells \(128\)"):
        from_anemoi(interface, toy_store)
    interface.pre_processors["data"].processors["imputer"] = torch.nn.Identity()
    with pytest.raises(ValueError, match=r"processors \['InputNormalizer', 'Identity'\]"):
        from_anemoi(interface, store)
