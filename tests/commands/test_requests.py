from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from diffusion_lab.commands.requests import (
    ForecastRequest,
    VerifyRequest,
    parse_date,
    run_forecast,
    run_verify,
)
from diffusion_lab.config import ConfigError
from diffusion_lab.inference.release import load_release, save_release

ASKED = ("checkpoint=example-tendency", "date=2025-01-01")


def test_keys_values_and_their_defaults():
    request = ForecastRequest.parse([*ASKED, "members=4", "predict_kwargs.sampler_params.S_churn=2.5"])
    assert (request.lead_time, request.members, request.seed, request.output) == ("10d", 4, 0, "forecast.nc")
    assert request.overrides == {"noise_scheduler_params": {}, "sampler_params": {"S_churn": 2.5}}
    assert VerifyRequest.parse(["every=336h"]).every == "14d"


def test_the_command_line_wins_over_a_file(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(
        "checkpoint: mine\ndate: 2025-01-01\nmembers: 3\n"
        "predict_kwargs:\n  noise_scheduler_params: {num_steps: 7, rho: 5}\n"
    )
    words = [str(file), "members=50", "predict_kwargs.noise_scheduler_params.num_steps=9"]
    request = ForecastRequest.parse(words)
    assert (request.checkpoint, request.date, request.members) == ("mine", "2025-01-01", 50)
    assert request.overrides["noise_scheduler_params"] == {"num_steps": 9, "rho": 5}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*ASKED, "member=4"], "member = 4: there is no such key; did you mean 'members'"),
        (
            [*ASKED, "predict_kwargs.sampler=heun"],
            "predict_kwargs.sampler = 'heun': there is no such key; did you mean 'sampler_params'",
        ),
        ([*ASKED, "members=0"], r"members = 0: .*greater than or equal to 1"),
        ([*ASKED, "members=many"], r"members = 'many': .*integer"),
        ([*ASKED, "lead_time=soon"], "lead_time = 'soon': .*; write it as '6h', '12h' or '1d'"),
        (["date=2025-01-01"], "checkpoint: is required; write checkpoint=…"),
        (["nowhere.yaml"], "no file .*nowhere.yaml.*; settings are FILE.yaml and key=value"),
    ],
)
def test_wrong_requests_are_refused_by_name(words, message):
    with pytest.raises(ConfigError, match=message):
        ForecastRequest.parse(words)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"checkpoint: mine\n date: [\n", "cannot be read as YAML: (.|\n)*line 2, column 6"),
        (b"- checkpoint\n", "holds a list; write its settings as key: value"),
        (b"\x89HDF\r\n\x1a\n", "cannot be read as YAML"),
    ],
)
def test_files_that_hold_no_settings_are_named(content, message, tmp_path):
    (tmp_path / "run.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"run.yaml' {message}"):
        ForecastRequest.parse([str(tmp_path / "run.yaml")])
    with pytest.raises(ConfigError, match=r"cannot be read as YAML: .*directory"):
        ForecastRequest.parse([str(tmp_path)])


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("2025-01-01", "2025-01-01T00"),
        ("2025-01-01T12", "2025-01-01T12"),
        ("2025-01-01 06:00", "2025-01-01T06"),
        ("20250101", "2025-01-01T00"),
        ("20250101T12:00:00", "2025-01-01T12"),
    ],
)
def test_dates(text, date):
    assert np.datetime64(parse_date(text)) == np.datetime64(date)


def test_what_is_no_date_is_refused():
    for text in ("tomorrow", "2025-13-01", "20251301"):
        with pytest.raises(ConfigError, match=f"date={text} is no date; write it as 2025-01-01"):
            parse_date(text)


@pytest.fixture
def reports(monkeypatch):
    """The scores of each verification, in place of its report: pictures take seconds."""
    kept = []

    def keep(folder, forecast, scores, store, *, title, facts):
        kept.append(scores)
        return [Path(folder), Path(folder)]

    monkeypatch.setattr("diffusion_lab.commands.requests.save_report", keep)
    return kept


def ask(checkpoint, tmp_path, *words):
    return [f"checkpoint={checkpoint}", "members=2", f"output={tmp_path}/out.nc", *words]


def test_a_forecast_is_written_as_asked(checkpoint, forecaster, toy_store, tmp_path, capsys):
    words = ("date=20241205T00:00:00", "lead_time=48h", "seed=5")
    steps = "predict_kwargs.noise_scheduler_params.num_steps=2"
    run_forecast(ForecastRequest.parse(ask(checkpoint, tmp_path, *words, steps)))
    assert "2 members to 2d from 2024-12-05" in capsys.readouterr().out
    written = xr.open_dataset(tmp_path / "out.nc", engine="h5netcdf")
    expected = forecaster.forecast("2024-12-05", 2, 2, 5, toy_store, {"num_steps": 2})
    np.testing.assert_array_equal(written["msl"], expected["msl"])


def test_two_devices_write_what_one_does(checkpoint, forecaster, toy_store, tmp_path):
    """Of two start dates; how the members of one are spread is tested with `states_on_devices`."""
    dates = ["2024-12-05", "2024-12-20"]
    words = (f"date={','.join(dates)}", "lead_time=1d", "device=cpu", "devices=2", f"data={toy_store.path}")
    steps = "predict_kwargs.noise_scheduler_params.num_steps=2"
    run_forecast(ForecastRequest.parse(ask(checkpoint, tmp_path, *words, steps)))
    for date in dates:
        written = xr.open_dataset(tmp_path / f"out-{date}T00.nc", engine="h5netcdf")
        expected = forecaster.forecast(date, 1, 2, 0, toy_store, {"num_steps": 2})
        np.testing.assert_allclose(written["msl"], expected["msl"], rtol=1e-6)


def test_lead_times_between_the_steps_are_refused(checkpoint, tmp_path):
    with pytest.raises(ConfigError, match="lead_time=36h is no multiple of the model's step 1d"):
        run_forecast(ForecastRequest.parse(ask(checkpoint, tmp_path, "date=2024-12-05", "lead_time=36h")))


def test_a_checkpoint_is_verified_over_its_window(checkpoint, reports, capsys, tmp_path):
    words = (
        "start=2025-01",
        "end=2025-02",
        "starts=5",
        "every=16d",
        "lead_time=2d",
        "members=2",
        f"output={tmp_path}",
    )
    run_verify(VerifyRequest.parse([f"checkpoint={checkpoint}", *words]))
    assert "t850" in capsys.readouterr().out
    # Starts on 1 and 17 January; two days from 2 February are beyond the store, which ends on the 3rd.
    assert reports[0].attrs["num_starts"] == 2
    assert reports[0]["lead_time"].size == 2


def test_a_checkpoint_is_verified_over_the_test_window_that_it_names(checkpoint, reports, capsys, tmp_path):
    own = tmp_path / "own.safetensors"
    release, *network = load_release(checkpoint)
    release.training["test_window"] = ["2024-12-20", "2024-12-29"]
    save_release(own, release, *network)
    words = ("every=1d", "lead_time=1d", "members=2", f"output={tmp_path}")
    run_verify(VerifyRequest.parse([f"checkpoint={own}", *words]))
    assert reports[0].attrs["num_starts"] == 10
    assert "2024-12-20 to 2024-12-29" in capsys.readouterr().out
    run_verify(VerifyRequest.parse([f"checkpoint={own}", *words, "start=2024-12-26", "starts=9"]))
    assert reports[1].attrs["num_starts"] == 4


def test_a_forecast_file_is_verified_as_its_checkpoint_would_be(checkpoint, toy_store, tmp_path, reports):
    run_forecast(ForecastRequest.parse(ask(checkpoint, tmp_path, "date=2025-01-06", "lead_time=1d")))
    run_verify(VerifyRequest.parse([f"forecast={tmp_path}/out.nc", f"data={toy_store.path}"]))
    window = ("start=2025-01-06", "end=2025-01-06", "members=2", "lead_time=1d", f"output={tmp_path}")
    run_verify(VerifyRequest.parse([f"checkpoint={checkpoint}", *window]))
    of_file, of_model = (report.sortby("variable") for report in reports)  # a file may list them by name
    assert of_model["deterministic_mae"].notnull().all()  # which a file cannot be compared with
    xr.testing.assert_allclose(of_file.drop_attrs(), of_model[list(of_file)].drop_attrs())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "verify wants one of checkpoint=NAME and forecast=FILE; released: "),
        (["checkpoint=a", "forecast=b"], "verify wants one of"),
        (["forecast=b.nc"], "needs data=STORE"),
    ],
)
def test_what_to_verify_must_be_clear(words, message):
    with pytest.raises(ConfigError, match=message):
        run_verify(VerifyRequest.parse(words))


def test_windows_without_starts_are_refused(checkpoint):
    request = VerifyRequest.parse([f"checkpoint={checkpoint}", "start=2031", "end=2031"])
    with pytest.raises(ConfigError, match="no forecast to 5d from 2031 to 2031 in Store"):
        run_verify(request)
