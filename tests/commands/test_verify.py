from pathlib import Path

import pytest
import xarray as xr

from diffusion_lab.commands.forecast import ForecastRequest, run_forecast
from diffusion_lab.commands.verify import VerifyRequest, run_verify
from diffusion_lab.config import ConfigError
from diffusion_lab.inference.release import load_release, save_release


@pytest.fixture
def reports(monkeypatch):
    """The scores of each verification, in place of its report: pictures take seconds."""
    kept = []

    def keep(folder, forecast, scores, store, *, title, facts):
        kept.append(scores)
        return [Path(folder), Path(folder)]

    monkeypatch.setattr("diffusion_lab.commands.verify.save_report", keep)
    return kept


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
    words = [f"checkpoint={checkpoint}", "members=2", f"output={tmp_path}/out.nc"]
    run_forecast(ForecastRequest.parse([*words, "date=2025-01-06", "lead_time=1d"]))
    run_verify(VerifyRequest.parse([f"forecast={tmp_path}/out.nc", f"data={toy_store.path}"]))
    window = ("start=2025-01-06", "end=2025-01-06", "members=2", "lead_time=1d", f"output={tmp_path}")
    run_verify(VerifyRequest.parse([f"checkpoint={checkpoint}", *window]))
    of_file, of_model = (report.sortby("variable") for report in reports)  # a file may list them by name
    assert of_model["deterministic_mae"].notnull().all()  # which a file cannot be compared with
    xr.testing.assert_allclose(of_file.drop_attrs(), of_model[list(of_file)].drop_attrs())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "verify needs either checkpoint=NAME or forecast=FILE; released: "),
        (["checkpoint=a", "forecast=b"], "verify needs either"),
        (["forecast=b.nc"], "needs data=STORE"),
    ],
)
def test_what_to_verify_must_be_clear(words, message):
    with pytest.raises(ConfigError, match=message):
        VerifyRequest.parse(words)


def test_windows_without_starts_are_refused(checkpoint):
    request = VerifyRequest.parse([f"checkpoint={checkpoint}", "start=2031", "end=2031"])
    with pytest.raises(
        ConfigError, match="no forecast to 5d from 2031-01-01T00:00 to 2031-12-31T23:59 in Store"
    ):
        run_verify(request)
