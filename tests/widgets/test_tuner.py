import gc
import random
import shutil
import threading
import time
import tracemalloc
from dataclasses import fields

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

from diffusion_lab.assets import checkpoints
from diffusion_lab.inference import load_forecaster
from diffusion_lab.samplers.churn import GAMMA_MAX
from diffusion_lab.widgets import SamplerTuner
from diffusion_lab.widgets.tuner.board import fault
from diffusion_lab.widgets.tuner.setting import Setting, presets_of
from diffusion_lab.widgets.worker import Cancelled

WAIT = 60.0
DATE = "2024-12-05T00"


@pytest.fixture
def tuner(toy_checkpoint):
    tuner = SamplerTuner(toy_checkpoint, date=DATE, members=3, members_per_call=2)
    yield tuner
    tuner.stop()
    assert tuner.wait_idle(WAIT)


def made(tuner):
    """The forecast of the present setting, with nothing drawn."""
    *_, last = tuner.session.run(tuner.setting)
    return last.result.dataset


def asked_of_the_forecaster(tuner):
    setting = tuner.setting
    return load_forecaster(setting.checkpoint, setting.device).forecast(
        setting.date,
        setting.steps,
        setting.members,
        setting.seed,
        members_per_call=2,
        **setting.predict_kwargs,
    )


@pytest.mark.parametrize(
    "moves",
    [
        {},
        {"date": "2024-12-07"},
        {"steps": 2},
        {"steps": 2, "noise_correlation": 0.5},
        {"members": 4},
        {"seed": 5},
        {"schedule_type": "exponential"},
        {"num_steps": 4},
        {"sigma_max": 50.0},
        {"sigma_min": 0.1},
        {"rho": 5.0},
        {"sampler": "dpmpp_2m"},
        {"S_churn": 1.0},
        {"S_churn": 1.0, "S_min": 1.0},
        {"S_churn": 1.0, "S_max": 10.0},
        {"S_churn": 1.0, "S_noise": 1.05},
    ],
    ids=str,
)
def test_every_control_acts_as_the_forecasters_own_argument(tuner, moves):
    """Bit for bit, at equal chunks of members; and it does act."""
    before = made(tuner)
    tuner.set(**moves)
    result = made(tuner)
    xr.testing.assert_identical(result, asked_of_the_forecaster(tuner))
    assert not moves or not result.equals(before)


def test_every_control_is_tested():
    (parameters,) = test_every_control_acts_as_the_forecasters_own_argument.pytestmark
    moved = {name for moves in parameters.args[1] for name in moves}
    assert moved | {"checkpoint", "device"} == {field.name for field in fields(Setting)}


def test_another_checkpoint_acts_as_the_forecasters_own_argument(tuner, make_toy_checkpoint):
    before = made(tuner)
    tuner.controls.widgets["checkpoint"].value = str(make_toy_checkpoint(seed=4))
    result = made(tuner)
    xr.testing.assert_identical(result, asked_of_the_forecaster(tuner))
    assert not result.equals(before)


@pytest.mark.parametrize(
    "device",
    ["cpu:0", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))],
)
def test_another_device_acts_as_the_forecasters_own_argument(tuner, device):
    tuner.set(device=device)
    asked = asked_of_the_forecaster(tuner)
    assert tuner.session.result(tuner.setting) is None
    xr.testing.assert_identical(made(tuner), asked)
    assert tuner.session.result(tuner.setting).setting.device == device


def test_the_calls_are_those_the_sampler_makes(tuner):
    tuner.set(num_steps=4)
    tuner.run(WAIT)
    result = tuner.session.result(tuner.setting)
    assert result.calls == 2 * 4 - 1  # Heun
    assert list(result.members) == [0, 1, 2] and result.finished


def test_scores_are_those_of_the_verification(tuner, toy_store):
    from diffusion_lab.verification import score

    forecast = tuner.run(WAIT)
    scores = score(forecast, toy_store).isel(lead_time=0).sel(variable="t850")
    for name, value in tuner.scores.items():
        assert value == pytest.approx(float(scores[name]), rel=1e-4)
    result = tuner.session.result(tuner.setting)
    np.testing.assert_allclose(result.ranks("t850", 1), scores["rank_histogram"].values, atol=1e-6)


def test_a_result_that_was_made_is_kept(tuner):
    first = tuner.run(WAIT)
    tuner.set(sigma_max=60.0).run(WAIT)
    tuner.session.forecaster = None  # nothing can be made any more
    with pytest.raises(TypeError):
        next(tuner.session.run(tuner.setting.changed(seed=9)))
    del tuner.session.forecaster
    tuner.undo()
    xr.testing.assert_identical(tuner.result, first)
    # What the sampler does not take changes nothing, so nothing is sampled.
    tuner.set(sampler="deis", S_churn=0.0).run(WAIT)
    kept = tuner.result
    tuner.set(S_churn=1.0)
    assert tuner.result.equals(kept)


def test_the_oldest_results_make_room(tuner):
    tuner.session._cache_bytes = 1
    tuner.run(WAIT)
    tuner.set(seed=1).run(WAIT)
    assert tuner.result is not None
    tuner.undo()
    assert tuner.result is None


def test_what_is_out_of_range_is_refused_and_changes_nothing(tuner):
    before = tuner.setting
    for moves, error, message in [
        ({"sigma_max": 0.001}, ValueError, "sigma_max"),
        ({"num_steps": 0}, ValueError, "num_steps"),
        ({"members": 0}, ValueError, "members"),
        ({"S_min": 2.0, "S_max": 1.0}, ValueError, "S_min"),
        ({"sampler": "huen"}, ValueError, "heun"),
        ({"date": "1999-01-01"}, KeyError, "1999-01-01"),
        ({"sigma_mx": 1.0}, KeyError, "sigma_max"),
        ({"variable": "t851"}, ValueError, "t850"),
        ({"lead": 2}, ValueError, "lead"),
        ({"checkpoint": "nowhere"}, FileNotFoundError, "nowhere"),
    ]:
        with pytest.raises(error, match=message):
            tuner.set(**moves)
        assert tuner.setting == before
    tuner.run(WAIT)


def test_a_hand_out_of_range_reads_why_and_the_control_goes_back(tuner, by_hand):
    tuner.run(WAIT)
    before, slider, status = tuner.setting, tuner.controls.widgets["S_min"], tuner.toolbar.status
    by_hand(tuner.controls.widgets["S_max"], 1.0)
    assert tuner.setting == before.changed(S_max=1.0)
    by_hand(slider, 2.0)
    assert "S_min" in status.fault and slider.value == tuner.setting.S_min == 0.0
    by_hand(slider, 0.5)
    assert tuner.wait_idle(WAIT)
    assert tuner.result is not None and "ready" in status.text and not status.fault and tuner.error is None
    tuner.undo()
    assert tuner.setting == before.changed(S_max=1.0)  # what was refused is not in the way


def test_a_checkpoint_that_is_not_there_is_refused_and_the_box_goes_back(tuner, toy_checkpoint):
    before, box = tuner.setting, tuner.controls.widgets["checkpoint"]
    box.value = " example-tendenci "
    assert "did you mean 'example-tendency'?" in tuner.toolbar.status.fault
    assert box.value == before.checkpoint and tuner.setting == before
    assert not tuner.history.can_undo
    box.value = f"  {toy_checkpoint} "
    assert tuner.setting == before and box.value == before.checkpoint
    tuner.reset()
    assert not tuner.toolbar.status.fault


def test_a_value_stays_where_its_range_shrinks(tuner, by_hand):
    """S_churn is cut off at (√2 − 1)·N in the sampler; its control must not move by itself."""
    tuner.set(num_steps=7, S_churn=2.5)
    slider = tuner.controls.widgets["S_churn"]
    by_hand(tuner.controls.widgets["num_steps"], 5)
    assert slider.stops[-1] == pytest.approx(GAMMA_MAX * 5, abs=1e-4)
    assert slider.value == tuner.setting.S_churn == 2.5
    tuner.preset("GenCast's")
    assert slider.value == tuner.setting.S_churn == 2.5
    tuner.reset()
    assert slider.value == tuner.setting.S_churn == 0.0


def test_an_error_in_sampling_appears_and_the_next_setting_runs(tuner, monkeypatch):
    forecaster = tuner.session.forecaster(tuner.setting.checkpoint, "cpu")
    with monkeypatch.context() as patch:
        patch.setattr(forecaster.model, "embed", lambda x: (_ for _ in ()).throw(MemoryError("no room")))
        with pytest.raises(MemoryError):
            tuner.run(WAIT)
    assert "fewer members" in tuner.toolbar.status.fault
    assert tuner.run(WAIT) is not None


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
        ),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB\n<more>"),
    ],
)
def test_any_lack_of_memory_is_told_with_the_remedy(error):
    assert "fewer members" in fault(error) and "<more>" not in fault(error)


def test_stop_stops_at_the_next_network_call(tuner, monkeypatch):
    forecaster = tuner.session.forecaster(tuner.setting.checkpoint, "cpu")
    network, calls, reached, go_on = forecaster.model.network, [], threading.Event(), threading.Event()

    def slow(*args):
        calls.append(1)
        if len(calls) == 3:
            reached.set()
            assert go_on.wait(WAIT)
        return network(*args)

    monkeypatch.setattr(forecaster.model, "network", slow)
    tuner.set(num_steps=10)
    tuner._sample()
    assert reached.wait(WAIT)
    tuner.toolbar.buttons["stop"].click()
    go_on.set()
    assert tuner.wait_idle(WAIT)
    assert len(calls) == 3
    assert "stopped" in tuner.toolbar.status.text and tuner.result is None


def test_the_film_rests_at_its_end_however_quick_it_was(tuner):
    """Steps that come faster than a page draws are left out; so are all of a result that was kept."""
    tuner.sampling._min_interval = 1e9  # the first frame is shown, and the result
    for num_steps in (4, 6, 4):
        tuner.set(num_steps=num_steps).run(WAIT)
        result, pictures = tuner.session.result(tuner.setting), tuner.pictures
        assert pictures.at.value == pictures.at.stops[-1] == num_steps
        last = result.films[0][-1, -1, :, result.variables.index(pictures.variable.value)]
        np.testing.assert_array_equal(pictures.canvases["film"].values, result.place.raster(last))


def test_the_film_shows_each_answer_of_the_denoiser(tuner):
    frames = list(tuner.session.run(tuner.setting))
    sigmas = load_forecaster(tuner.setting.checkpoint).settings.sigmas()
    film = [frame for frame in frames if frame.denoised is not None]
    assert [frame.sigma for frame in film] == sigmas[:-1].tolist()
    assert frames[-1].share == 1.0 and frames[-1].result.finished
    last = frames[-1].result
    np.testing.assert_array_equal(last.films[0][0], [frame.denoised for frame in film])
    # The last step goes to σ = 0, where the answer is the sample itself.
    np.testing.assert_allclose(last.films[0][0, -1], last.states[0, 0], rtol=1e-5)
    previews = [len(frame.result.members) for frame in frames if frame.result is not None]
    assert previews[-1] == 3 and previews[0] == 2


def test_the_film_is_of_the_member_that_is_shown(tuner):
    first = tuner.run(WAIT)
    for member in (2, 1):
        tuner.set(member=member).run(WAIT)
        result = tuner.session.result(tuner.setting)
        np.testing.assert_allclose(result.films[member][0, -1], result.states[0, member], rtol=1e-5)
        assert f"member {member}" in tuner.pictures.canvases["film"].title
        assert tuner.result.equals(first)
    tuner.set(member=2, seed=1).run(WAIT)  # the watched members go first, and all come
    result = tuner.session.result(tuner.setting)
    assert result.members == (0, 1, 2) and set(result.films) == {2}
    xr.testing.assert_identical(tuner.result, asked_of_the_forecaster(tuner))


def test_canvases_show_the_result(tuner, by_hand):
    tuner.set(variable="msl", member=2).run(WAIT)
    result, canvases = tuner.session.result(tuner.setting), tuner.pictures.canvases
    raster = result.place.raster
    fields, truth = result.fields("msl", 1), result.true_field("msl", 1)
    for name, field in {
        "truth": truth,
        "mean": fields.mean(0),
        "error": fields.mean(0) - truth,
        "member": fields[2],
        "spread": fields.std(0, ddof=1),
    }.items():
        np.testing.assert_array_equal(canvases[name].values, raster(field))
        assert canvases[name].units == "Pa"
    assert canvases["truth"].limits == canvases["mean"].limits == [truth.min(), truth.max()]
    by_hand(tuner.pictures.at, 2)
    np.testing.assert_array_equal(canvases["film"].values, raster(result.films[2][0, 1, :, 1]))
    assert "σ = " in canvases["film"].title


def test_maps_of_another_setting_are_marked_as_old(tuner, monkeypatch):
    tuner.run(WAIT)
    assert not tuner.pictures.canvases["mean"].old and "<td>now" not in tuner.table.value
    monkeypatch.setattr(tuner.session, "run", lambda *asked: (_ for _ in ()).throw(Cancelled))
    tuner.set(seed=3)
    assert tuner.wait_idle(WAIT)
    assert {name for name, canvas in tuner.pictures.canvases.items() if canvas.old} == {
        *("member", "mean", "error", "spread")
    }
    assert "●</span> before" in tuner.table.value
    monkeypatch.undo()
    tuner.run(WAIT)
    assert not any(canvas.old for canvas in tuner.pictures.canvases.values())


def test_correlation_acts_between_forecast_steps_only(tuner):
    """One step has none before it: its forecast is the same, and not made again."""
    made = tuner.run(WAIT)
    tuner.set(noise_correlation=0.5)
    assert tuner.result is made and tuner.controls.widgets["noise_correlation"].disabled
    assert made.equals(asked_of_the_forecaster(tuner))
    tuner.set(steps=2)
    assert tuner.result is None and not tuner.controls.widgets["noise_correlation"].disabled


def test_colours_compare_while_something_is_pinned(tuner):
    tuner.run(WAIT)
    canvases, pinned = tuner.pictures.canvases, tuner.pictures.pinned
    tuner.pin()
    limits = {name: canvases[name].limits for name in ("error", "spread")}
    means = tuner.result["t850"].isel(time=0).mean("ensemble").values
    tuner.set(sigma_max=2.0, num_steps=2).run(WAIT)  # far from the truth
    assert {name: canvases[name].limits for name in ("error", "spread")} == limits
    assert all(pinned[name].limits == limits[name] for name in limits)
    place = tuner.session.place(tuner.setting)
    np.testing.assert_allclose(pinned["mean"].values, place.raster(means), rtol=1e-6)
    assert pinned["mean"].title.startswith("A: ")
    tuner.unpin()
    assert {name: canvases[name].limits for name in ("error", "spread")} != limits


def test_a_run_ends_when_no_page_shows_the_tuner(tuner, monkeypatch):
    tuner._repr_mimebundle_()
    assert tuner.wait_idle(WAIT)
    tuner.toolbar.status.views = 1
    network, reached = tuner._forecaster.model.network, threading.Event()
    monkeypatch.setattr(
        tuner._forecaster.model,
        "network",
        lambda *given: reached.set() or time.sleep(0.05) or network(*given),
    )
    tuner.set(num_steps=100)
    assert reached.wait(WAIT)
    tuner.toolbar.status.views = 0
    assert tuner.wait_idle(2.0)
    assert tuner.result is None and not tuner.session._results
    tuner.set(num_steps=3, seed=7)
    assert not tuner.sampling.busy  # nobody looks
    tuner.toolbar.status.views = 1
    assert tuner.wait_idle(WAIT) and tuner.result is not None  # the page is back


def test_churn_ends_where_it_saturates(tuner):
    for num_steps in (4, 20):
        tuner.set(num_steps=num_steps)
        values = tuner.controls.widgets["S_churn"].stops
        assert values[-1] == pytest.approx(GAMMA_MAX * num_steps, abs=1e-4)
        assert f"{GAMMA_MAX * num_steps:.3g}" in tuner.controls.saturation.value
    tuner.set(sampler="deis")
    assert tuner.controls.widgets["S_churn"].disabled and not tuner.controls.widgets["rho"].disabled
    tuner.set(schedule_type="linear")
    assert tuner.controls.widgets["rho"].disabled


def test_a_pinned_setting_is_what_changes_are_told_against(tuner):
    with pytest.raises(ValueError, match="nothing to pin"):
        tuner.pin()
    tuner.run(WAIT)
    before = tuner.scores["fair_crps"]
    assert tuner.pin() == "A"
    tuner.set(sigma_min=0.3).run(WAIT)
    change = f"{100 * (tuner.scores['fair_crps'] / before - 1):+.1f} %".replace("-", "−")
    assert change in tuner.table.value and "sigma_min 0.3" in tuner.table.value
    assert tuner.pin() == "B" and tuner.toolbar.reference.value == "B"
    tuner.unpin()
    assert "●</span> A" not in tuner.table.value


def test_history_joins_the_moves_of_a_drag(tuner, by_hand):
    first, slider = tuner.setting, tuner.controls.widgets["sigma_max"]
    values = slider.stops
    for value in values[10:20]:
        by_hand(slider, value, moving=value != values[19])
    tuner.set(seed=4)
    tuner.undo()
    assert tuner.setting == first.changed(sigma_max=values[19]) and slider.value == values[19]
    tuner.undo()
    assert tuner.setting == first and slider.value == first.sigma_max
    tuner.redo()
    assert tuner.setting.sigma_max == values[19]
    tuner.toolbar.buttons["undo"].click()
    assert tuner.setting == first and tuner.toolbar.buttons["undo"].disabled


def test_presets_and_reset(tuner):
    start = tuner.setting
    assert tuner.toolbar.presets.value == "choose …"
    tuner.preset("GenCast's")
    assert (tuner.setting.sampler, tuner.setting.S_churn, tuner.setting.S_noise) == ("dpmpp_2s", 2.5, 1.05)
    tuner.toolbar.presets.value = "guide's defaults"
    assert tuner.setting.num_steps == 50 and tuner.toolbar.presets.index == 0
    tuner.reset()
    assert tuner.setting == start
    with pytest.raises(KeyError, match="GenCast's"):
        tuner.preset("GenCats")


def test_a_searched_optimum_beside_a_checkpoint_is_a_preset(toy_checkpoint, tmp_path):
    own = tmp_path / "own.safetensors"
    shutil.copy(toy_checkpoint, own)
    assert "searched optimum" not in SamplerTuner(own, date=DATE).toolbar.presets.options
    found = {"noise_scheduler_params": {"num_steps": 5}, "sampler_params": {"sampler": "deis"}}
    own.with_suffix(".predict_kwargs.yaml").write_text(yaml.safe_dump({"predict_kwargs": found}))
    tuner = SamplerTuner(own, date=DATE)
    tuner.toolbar.presets.value = "searched optimum"
    assert tuner.setting == SamplerTuner(toy_checkpoint, date=DATE).setting.changed(
        checkpoint=str(own), num_steps=5, sampler="deis"
    )


@pytest.mark.parametrize("name", checkpoints())
def test_the_presets_of_released_checkpoints_can_be_sampled(name):
    forecaster = load_forecaster(name, "cpu")
    presets = presets_of(name, forecaster)
    assert "searched optimum" in presets or name != "example-tendency"
    for values in presets.values():
        Setting(name, "cpu", DATE, **values).check(forecaster)


def test_what_is_exported_makes_the_same_forecast(tuner, toy_checkpoint, tmp_path):
    from diffusion_lab.commands.forecast import ForecastRequest

    result = tuner.set(S_churn=0.5, S_max=30.0, sigma_max=60.0).run(WAIT)
    block, python, netcdf = tuner.export(tmp_path)
    request = ForecastRequest.parse([str(block), f"checkpoint={toy_checkpoint}", f"date={DATE}"])
    again = load_forecaster(toy_checkpoint, "cpu").forecast(
        DATE, 1, 3, members_per_call=2, **request.overrides
    )
    xr.testing.assert_identical(again, result)
    names = {}
    exec(python.read_text(), names)
    xr.testing.assert_identical(names["forecast"], result)
    with xr.open_dataset(netcdf, engine="h5netcdf") as stored:
        np.testing.assert_array_equal(stored["t850"], result["t850"])
    tuner.set(S_churn=0.0, S_max=float("inf"), sampler="deis")
    block, python = tuner.export(tmp_path / "unfinished")
    assert "S_churn" not in block.read_text()


def test_what_is_exported_of_a_given_forecaster_leaves_it_to_the_user(toy_checkpoint, tmp_path):
    forecaster = load_forecaster(toy_checkpoint, "cpu")
    tuner = SamplerTuner(forecaster, date=DATE, members=3, members_per_call=2)
    result = tuner.run(WAIT)
    names = {"forecaster": forecaster}
    exec(tuner.export(tmp_path)[1].read_text(), names)
    xr.testing.assert_identical(names["forecast"], result)


def test_a_picture_is_stored_with_the_cell(tuner):
    bundle = tuner._repr_mimebundle_()
    assert tuner.wait_idle(WAIT)
    assert bundle["text/plain"] == tuner.summary()
    assert "sigma_max=80.0" in tuner.summary() and "3 members" in tuner.summary()
    assert len(tuner.figure().axes) == 9 + 6  # maps with colour bars, and charts
    assert tuner.result is not None  # on display, it samples


def test_two_hundred_moves_leave_the_last_one_shown(toy_checkpoint, by_hand):
    tuner = SamplerTuner(toy_checkpoint, date=DATE, members=3, members_per_call=2)
    tuner.run(WAIT)
    threads = threading.active_count()
    hand = random.Random(0)
    names = ("sigma_max", "sigma_min", "rho", "S_churn", "S_noise")
    for _ in range(200):
        slider = tuner.controls.widgets[hand.choice(names)]
        by_hand(slider, hand.choice(slider.stops), moving=hand.random() < 0.8)
        time.sleep(0.005)
    assert tuner.wait_idle(WAIT)
    assert tuner.error is None
    result = tuner.session.result(tuner.setting)
    for name, field in {
        "mean": result.fields("t850", 1).mean(0),
        "truth": result.true_field("t850", 1),
    }.items():
        np.testing.assert_array_equal(tuner.pictures.canvases[name].values, result.place.raster(field))
    for name, slider in tuner.controls.widgets.items():
        assert slider.value == getattr(tuner.setting, name)
    deadline = time.monotonic() + WAIT
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= threads


def test_memory_is_flat(tuner):
    tuner.session._cache_bytes = 1
    tuner.set(num_steps=2)

    def moves(seeds):
        for seed in seeds:
            tuner.set(seed=seed).run(WAIT)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    moves(range(2))
    tracemalloc.start()  # which makes all of it slow
    try:
        before = moves(range(2, 4))
        growth = moves(range(4, 9)) - before
    finally:
        tracemalloc.stop()
    assert growth < 2e5  # 5e4 as a rule; bars that outlived their picture made 4e5, figures would make more
