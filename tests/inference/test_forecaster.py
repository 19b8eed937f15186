import numpy as np
import pytest
import torch
import xarray as xr

from diffusion_lab.inference import SamplingSettings, load_forecaster
from diffusion_lab.making import StoreMetadata, Variable, create_store
from diffusion_lab.noise import MemberNoise, spherical_harmonics
from diffusion_lab.stores import compute_forcing

DAY = np.timedelta64(1, "D")
START = "2024-12-05"


def fields(forecast):
    return np.stack([forecast[name].values for name in ("t850", "msl")], axis=-1)


def test_predict_step_of_a_blank_network_by_hand(blank, toy_store, heun_factor):
    """F = 0: the tendency is a known factor times the noise, a diagnostic variable likewise its state."""
    store = toy_store.with_roles(diagnostic=["msl"])
    first = store.index("2024-06-01")
    batch = torch.zeros(2, 2, 3, 288, 4)  # t850, orography and two computed forcings
    temperature = torch.from_numpy(store.read([first, first + 1], ["t850"])[:, 0, 0])
    batch[..., 0] = torch.stack([temperature, temperature + 1])[:, :, None]
    result = blank.predict_step(batch, {"num_steps": 4}, seed=3)
    assert result.shape == (2, 1, 3, 288, 2)

    factor = heun_factor(blank.settings.override({"num_steps": 4}).sigmas().tolist())
    draw = MemberNoise(3).at(start=[0, 1], lead=1, members=range(3), shape=(1, 288, 2))(0).double()
    tendency, state = store.tendency_statistics("1d"), store.statistics
    change = tendency.mean[0] + factor * tendency.stdev[0] * draw[..., 0]
    torch.testing.assert_close(result[..., 0].double(), batch[:, -1:, ..., 0] + change, atol=2e-3, rtol=0)
    pressure = state.mean[1] + factor * state.stdev[1] * draw[..., 1]
    torch.testing.assert_close(result[..., 1].double(), pressure, atol=0.5, rtol=0)


def test_predict_step_takes_overrides(forecaster, toy_store):
    batch = torch.from_numpy(forecaster.reader(toy_store).inputs(toy_store.dates[[40, 41]]))[None]
    seeds = [forecaster.predict_step(batch, {"num_steps": 2}, seed=seed) for seed in (0, 1, 0)]
    assert torch.equal(seeds[0], seeds[2])
    assert (seeds[0] - seeds[1]).std() > 0.1
    churned = forecaster.predict_step(batch, {"num_steps": 2}, {"S_churn": 0.5})
    assert not torch.allclose(churned, seeds[0])
    with pytest.raises(ValueError, match="did you mean 'num_steps'"):
        forecaster.predict_step(batch, {"num_step": 2})
    with pytest.raises(ValueError, match="did you mean 'S_churn'"):
        forecaster.predict_step(batch, None, {"S_curn": 2})


def test_forecast_is_labelled_by_cf(forecaster, toy_store):
    forecast = forecaster.forecast(START, steps=3, members=2, data=toy_store)
    assert forecast.attrs["Conventions"] == "CF-1.11"
    assert list(forecast.attrs["field_shape"]) == [12, 24]
    assert {name: array.dims for name, array in forecast.data_vars.items()} == dict.fromkeys(
        ("t850", "msl"), ("time", "ensemble", "cell")
    )
    assert forecast["t850"].attrs == {
        "units": "K",
        "long_name": "temperature at 850 hPa",
        "standard_name": "air_temperature",
    }
    assert forecast["msl"].attrs["standard_name"] == "air_pressure_at_mean_sea_level"
    start = np.datetime64(START)
    np.testing.assert_array_equal(forecast["time"], start + DAY * np.arange(1, 4))
    np.testing.assert_array_equal(forecast["lead_time"], DAY * np.arange(1, 4))
    assert forecast["forecast_reference_time"].values == start
    assert forecast["forecast_reference_time"].ndim == 0
    np.testing.assert_array_equal(forecast["latitude"], toy_store.latitudes)
    standard = {name: forecast[name].attrs.get("standard_name") for name in forecast.coords}
    assert standard == {
        "time": "time",
        "lead_time": "forecast_period",
        "ensemble": "realization",
        "latitude": "latitude",
        "longitude": "longitude",
        "forecast_reference_time": "forecast_reference_time",
    }


def test_a_member_is_the_same_in_every_ensemble(forecaster, toy_store):
    def members(which, **options):
        return fields(
            forecaster.forecast(START, 2, which, data=toy_store, members_per_call=2, **options)
        ).swapaxes(0, 1)

    four, six = members(4), members(6)
    np.testing.assert_array_equal(six[:4], four)
    np.testing.assert_array_equal(members([4, 5]), six[4:])
    assert len(np.unique(six[:, 0, 0, 0])) == 6
    # Another chunking rounds matrix products differently, and nothing more.
    np.testing.assert_allclose(members([5, 0])[1], six[0], rtol=2e-5)
    assert np.abs(members(4, seed=1) - four).std() > 0.1


def test_chunks_of_members_change_rounding_only(forecaster, toy_store):
    one, all_at_once = (
        fields(forecaster.forecast(START, 2, 5, data=toy_store, members_per_call=n)) for n in (1, 5)
    )
    np.testing.assert_allclose(one, all_at_once, rtol=2e-5)


def test_correlated_noise_leaves_the_first_step_and_the_members_alone(forecaster, toy_store):
    def forecast(correlation, members=4, chunk=4):
        params = {"noise_correlation": correlation}
        made = forecaster.forecast(
            START, 3, members, data=toy_store, sampler_params=params, members_per_call=chunk
        )
        return fields(made)

    independent, remembered = forecast(0.0), forecast(0.7)
    np.testing.assert_array_equal(independent, fields(forecaster.forecast(START, 3, 4, data=toy_store)))
    np.testing.assert_array_equal(remembered[0], independent[0])
    assert np.abs(remembered[1:] - independent[1:]).std() > 0.01
    np.testing.assert_array_equal(forecast(0.7, [2, 3], chunk=2), forecast(0.7, chunk=2)[:, 2:])


def test_steps_take_the_noise_that_settings_ask_for(forecaster, toy_store, monkeypatch):
    """The initial noise of step k is φ times that of step k − 1 and √(1 − φ²) of step k's own."""
    taken = []
    steps = SamplingSettings.steps

    def recorded(settings, denoiser, noise):
        if noise(0).ndim == 5:  # not when the settings try their options
            taken.append(noise(0))
        return steps(settings, denoiser, noise)

    monkeypatch.setattr(SamplingSettings, "steps", recorded)
    for correlation in (0.0, 0.6):
        forecaster.forecast(START, 3, 1, data=toy_store, sampler_params={"noise_correlation": correlation})
    own, remembered = taken[:3], taken[3:]
    for k in (1, 2):
        torch.testing.assert_close(remembered[k], 0.6 * remembered[k - 1] + 0.8 * own[k])


def test_steps_follow_each_other(forecaster, toy_store):
    """The inputs of the second step are the analysis and the first step, of the third both forecasts."""
    seen = []
    bind = forecaster.model.denoiser

    def recorded(x):
        seen.append(forecaster.input_normalizer.denormalise(x))
        return bind(x)

    forecaster.model.denoiser = recorded
    forecast = forecaster.forecast(START, 3, 2, data=toy_store)
    past = toy_store.read([toy_store.index("2024-12-04"), toy_store.index(START)], ["t850", "msl"])
    assert [x.shape for x in seen] == [(1, 2, 2, 288, 5)] * 3
    for member in range(2):
        analysis = torch.from_numpy(past[:, :, 0]).swapaxes(1, 2)
        torch.testing.assert_close(seen[0][0, :, member, :, :2], analysis, rtol=1e-6, atol=1e-3)
        torch.testing.assert_close(seen[1][0, 0, member, :, :2], analysis[1], rtol=1e-6, atol=1e-3)
    made = torch.from_numpy(fields(forecast))
    torch.testing.assert_close(seen[1][0, 1, ..., :2], made[0], rtol=1e-6, atol=1e-3)
    torch.testing.assert_close(seen[2][0, :, ..., :2], made[:2], rtol=1e-6, atol=1e-3)
    # Forcings are those of each input's own valid time, also beyond the store.
    orography = torch.from_numpy(toy_store.read(0, ["orography"])[0, 0, 0])
    for step, x in enumerate(seen):
        dates = np.datetime64(START, "s") + np.array([step - 1, step]) * DAY
        for i, name in enumerate(["cos_julian_day", "insolation"], start=3):
            expected = compute_forcing(name, dates, toy_store.latitudes, toy_store.longitudes)
            for member in range(2):
                np.testing.assert_allclose(x[0, :, member, :, i], expected, atol=1e-6)
        torch.testing.assert_close(x[0, 1, 0, :, 2], orography, rtol=1e-5, atol=1e-2)


def test_forecasts_run_beyond_the_store(forecaster, toy_store):
    last = toy_store.dates[-1]
    forecast = forecaster.forecast(last, steps=2, members=1, data=toy_store)
    assert forecast["time"].values[-1] == last + 2 * DAY
    assert np.isfinite(fields(forecast)).all()


def test_the_checkpoint_names_its_store(forecaster, toy_store):
    own, given, path = (
        forecaster.forecast(START, 1, 1, data=data) for data in (None, toy_store, toy_store.path)
    )
    xr.testing.assert_identical(own, given)
    xr.testing.assert_identical(own, path)


def test_a_store_that_a_checkpoint_names_is_not_opened_unasked(forecaster, monkeypatch):
    opened = []
    monkeypatch.setattr("diffusion_lab.stores.store.open_store", opened.append)
    forecaster.release.store = "https://example.org/harm.zarr"
    with pytest.raises(ValueError, match=r"'https://example.org/harm.zarr', which does not ship .*data="):
        forecaster.forecast(START, 1, 1)
    assert not opened


def test_states_come_one_step_at_a_time(forecaster, toy_store):
    states = forecaster.rollout(START, steps=10**6, members=[0, 7], data=toy_store).states()
    one, two = next(states), next(states)
    forecast = fields(forecaster.forecast(START, 2, [0, 7], data=toy_store))
    np.testing.assert_array_equal(np.stack([one, two]), forecast)


@pytest.mark.parametrize(
    ("date", "error", "message"),
    [
        ("2026-01-01", KeyError, r"no date 2026-01-01.*; its dates run from 2024-01-01.* to 2025-02-03"),
        ("2024-12-05T06", KeyError, r"no date 2024-12-05T06:00"),
        ("2024-01-01", KeyError, r"no date 2023-12-31"),  # the state before the start
        ("2024-04-11", ValueError, r"input states at \[.*2024, 4, 10.* hold missing values"),
    ],
)
def test_dates_without_data_are_refused(forecaster, toy_store, date, error, message):
    with pytest.raises(error, match=message):
        forecaster.forecast(date, 1, 1, data=toy_store)


@pytest.mark.parametrize(("steps", "members"), [(0, 1), (-1, 1), (1, 0), (1, [])])
def test_empty_forecasts_are_refused(forecaster, toy_store, steps, members):
    with pytest.raises(ValueError, match="at least one step and one member"):
        forecaster.forecast(START, steps, members, data=toy_store)


def test_other_stores_are_refused(forecaster, toy_store, tmp_path):
    def store(name, longitudes, variables):
        metadata = StoreMetadata(
            [Variable(v, "K") for v in variables],
            toy_store.dates[:5],
            toy_store.latitudes[: len(longitudes)],
            longitudes,
            (len(longitudes),),
            "?",
            statistics_window=("2024", "2024"),
        )
        noise = np.random.default_rng(0).normal(size=(5, len(variables), len(longitudes)))
        return create_store(tmp_path / name, metadata, lambda times: noise[times])

    names = ["t850", "msl", "orography"]
    with pytest.raises(ValueError, match=r"other cells \(288\) than those of .*fewer.zarr' \(24\)"):
        forecaster.reader(store("fewer.zarr", toy_store.longitudes[:24], names))
    with pytest.raises(ValueError, match=r"differ by up to 0\.01 degrees; give data on the model's own grid"):
        forecaster.reader(store("turned.zarr", toy_store.longitudes + 0.01, names))
    with pytest.raises(KeyError, match=r"lacks msl, orography"):
        forecaster.reader(store("lacking.zarr", toy_store.longitudes, ["t850"]))
    forecaster.reader(store("same.zarr", toy_store.longitudes + 1e-6, names))


def test_a_device_can_be_chosen(checkpoint):
    assert load_forecaster(str(checkpoint), "cpu").device == torch.device("cpu")
    for name in ("abacus", "cuda:99"):  # a GPU that no machine has
        with pytest.raises(ValueError, match=f"device = '{name}': .*; give cpu, cuda, cuda:1, … or auto"):
            load_forecaster(checkpoint, name)


def test_on_a_cpu_nothing_is_compiled(checkpoint, monkeypatch):
    """Not even a probe, which takes seconds and warns where there is no compiler."""
    monkeypatch.setattr("diffusion_lab.acceleration.compile_blocks", lambda model: 1 / 0)
    load_forecaster(checkpoint, "cpu", compile=True)
    with pytest.raises(ZeroDivisionError):
        load_forecaster(checkpoint, "meta", compile=True)


def test_a_checkpoint_samples_with_the_noise_it_was_trained_on(isotropic, toy_store):
    """F = 0: the tendency is a multiple of the noise, so it has no part beyond the noise's wavenumbers."""
    batch = torch.from_numpy(isotropic.reader(toy_store).inputs(toy_store.dates[[40, 41]]))[None].double()
    change = isotropic.predict_step(batch.float(), {"num_steps": 4}).double() - batch[:, -1:, ..., :2]
    basis = spherical_harmonics(isotropic.latitudes, isotropic.longitudes, 3)
    residual = change[0, 0, 0] - basis @ torch.linalg.lstsq(basis, change[0, 0, 0]).solution
    assert (change[0, 0, 0].std(0) > torch.tensor([1.0, 100.0])).all()
    assert (residual.std(0) < torch.tensor([1e-3, 0.1])).all()


def test_solver_steps_show_a_forecast_as_it_is_sampled(forecaster, toy_store):
    """Every lead, chunk and solver step once; the last state of each chunk is that of the forecast."""
    settings = forecaster.settings.override({"num_steps": 3})
    rollout = forecaster.rollout(START, 2, 3, settings=settings, data=toy_store, members_per_call=2)
    seen = list(rollout.solver_steps())
    assert [(s.lead, list(s.members), s.step.index) for s in seen] == [
        (lead, members, index) for lead in (1, 2) for members in ([0, 1], [2]) for index in range(3)
    ]
    assert [s.last for s in seen] == [False, False, True] * 4
    made = fields(rollout.dataset())
    np.testing.assert_array_equal(np.concatenate([seen[2].state(), seen[5].state()]), made[0])
    np.testing.assert_array_equal(np.concatenate([seen[8].state(), seen[11].state()]), made[1])
    # The step to σ = 0 ends where its denoiser's answer is (y + (0 − σ)(y − D)/σ = D).
    np.testing.assert_allclose(seen[2].denoised(), seen[2].state(), rtol=1e-6)
    assert not torch.is_inference_mode_enabled()


def test_solver_steps_end_between_two_network_calls(forecaster, toy_store):
    class Stop(Exception):
        pass

    calls = []

    def wrap(denoiser):
        def watched(y, sigma):
            calls.append(sigma.item())
            if len(calls) == 2:
                raise Stop
            return denoiser(y, sigma)

        return watched

    with pytest.raises(Stop):
        next(forecaster.rollout(START, 1, [0], data=toy_store, wrap=wrap).solver_steps())
    assert calls == forecaster.settings.sigmas()[:2].tolist()  # Heun's second call is at the next level


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"members": [3, 3]}, r"members=\[3, 3\]: a member is given twice"),
        ({"members_per_call": 0}, "members_per_call=0 must be at least 1"),
        ({"members_per_call": -2}, "members_per_call=-2 must be at least 1"),
        ({"date": "now"}, "'now' is not a date; write it as 2025"),
        ({"date": None}, "None is not a date"),
        ({"seed": 2**64}, "seed = 18446744073709551616 must be an integer of 64 bits"),
        ({"seed": 1.5}, "seed = 1.5 must be an integer of 64 bits"),
    ],
)
def test_what_cannot_be_forecast_is_named(forecaster, toy_store, options, message):
    asked = {"date": "2024-12-05", "steps": 1, "members": 2, "data": toy_store} | options
    with pytest.raises(ValueError, match=message):
        next(forecaster.rollout(**asked).states())
