import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from diffusion_lab.commands.forecast import ForecastRequest, run_forecast
from diffusion_lab.commands.requests import help_of
from diffusion_lab.commands.verify import VerifyRequest
from diffusion_lab.config import ConfigError

ASKED = ("checkpoint=example-tendency", "date=2025-01-01")


def test_keys_values_and_their_defaults():
    request = ForecastRequest.parse([*ASKED, "members=4", "predict_kwargs.sampler_params.S_churn=2.5"])
    assert (request.lead_time, request.members) == (np.timedelta64(10, "D"), [0, 1, 2, 3])
    assert (request.date, request.seed, request.output) == (
        [np.datetime64("2025-01-01")],
        0,
        Path("forecast.nc"),
    )
    assert request.overrides == {"noise_scheduler_params": {}, "sampler_params": {"S_churn": 2.5}}
    assert VerifyRequest.parse(["checkpoint=a", "every=336h"]).every == np.timedelta64(14, "D")


def test_the_command_line_wins_over_a_file(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(
        "checkpoint: mine\ndate: 2025-01-01\nmembers: 3\n"
        "predict_kwargs:\n  noise_scheduler_params: {num_steps: 7, rho: 5}\n"
    )
    words = [str(file), "members=50", "predict_kwargs.noise_scheduler_params.num_steps=9"]
    request = ForecastRequest.parse(words)
    assert (request.checkpoint, str(request.date[0]), len(request.members)) == ("mine", "2025-01-01", 50)
    assert request.overrides["noise_scheduler_params"] == {"num_steps": 9, "rho": 5}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*ASKED, "member=4"], "member = 4: there is no such key; did you mean 'members'"),
        (
            [*ASKED, "predict_kwargs.sampler=heun"],
            "predict_kwargs.sampler = 'heun': there is no such key; did you mean 'sampler_params'",
        ),
        ([*ASKED, "members=0"], r"members = 0: an ensemble has at least one member"),
        ([*ASKED, "members=[3,3]"], r"members = \[3, 3\]: 3 is given twice; leave one out"),
        ([*ASKED, "members=[]"], r"members = \[\]: .*at least 1 item"),
        ([*ASKED, "members=[0,-1]"], r"members.1 = -1: .*greater than or equal to 0"),
        ([*ASKED, "members=true"], r"members = True: true is not a number"),
        ([*ASKED, "seed=18446744073709551616"], r"seed = 18446744073709551616: input should be less than"),
        ([*ASKED, "seed=1.5"], r"seed = 1.5: .*integer"),
        ([*ASKED, "device=gpu7"], r"device = 'gpu7': .*give cpu, cuda, cuda:1, … or auto"),
        (["checkpoint=a", "date=now"], r"date.0 = 'now': 'now' is not a date; write it as 2025"),
        (["checkpoint=a", "date=-1"], r"date.0 = '-1': '-1' is not a date"),
        (["checkpoint=a", "date=0"], r"date.0 = '0': '0' is not a date"),
        (["checkpoint=a", "date=null"], r"date = None: .*list"),
        (["checkpoint=a", "date=2025-01-01,2025-01-01"], r"date = .*: 2025-01-01 is given twice"),
        ([*ASKED, "members=many"], r"members = 'many': input should be a valid list"),
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


def ask(checkpoint, tmp_path, *words):
    return [f"checkpoint={checkpoint}", "members=2", f"output={tmp_path}/out.nc", *words]


def test_members_are_a_number_or_a_list():
    assert ForecastRequest.parse([*ASKED, "members=[5,2]"]).members == [5, 2]
    assert ForecastRequest.parse(ASKED).members == list(range(16))


def test_several_starts_have_a_file_each():
    request = ForecastRequest.parse(["checkpoint=a", "date=20250201,2025-02-03T12", "output=deep/f.zarr"])
    assert request.date == [np.datetime64("2025-02-01"), np.datetime64("2025-02-03T12")]
    assert request.outputs() == [Path("deep/f-2025-02-01T00.zarr"), Path("deep/f-2025-02-03T12.zarr")]


def test_the_help_names_each_field_with_its_type_default_and_meaning():
    text = help_of(ForecastRequest)
    for key, field in ForecastRequest.model_fields.items():
        assert f"\n  {key}" in text
        assert field.description.split()[0] in text
    assert re.search(r"lead_time +length: how far to forecast \(default: 10d\)", text)
    assert re.search(r"checkpoint +text: .* \(required\)", text)


def test_a_destination_is_checked_before_anything_is_loaded(tmp_path):
    (tmp_path / "out.nc").write_text("not a forecast")
    request = ForecastRequest.parse([*ASKED[1:], "checkpoint=nowhere", f"output={tmp_path}/out.nc"])
    with pytest.raises(ValueError, match="is there already and is not a forecast"):
        run_forecast(request)


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
    with pytest.raises(ConfigError, match="lead_time = 36h: is not a multiple of the model's step, 1d"):
        run_forecast(ForecastRequest.parse(ask(checkpoint, tmp_path, "date=2024-12-05", "lead_time=36h")))
