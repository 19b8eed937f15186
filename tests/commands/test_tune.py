import numpy as np
import pytest
import yaml

from diffusion_lab.commands.forecast import ForecastRequest
from diffusion_lab.commands.tune import TuneRequest, run_tune, search_dates
from diffusion_lab.config import ConfigError


def request(checkpoint, *words):
    """Of a search in the toy's last months; it is trained to the end of October 2024."""
    own = ["start=2024-11", "unseen_start=2025", "unseen_every=5d"]
    return TuneRequest.parse([f"checkpoint={checkpoint}", *own, *words])


def test_search_and_evaluation_share_no_date(checkpoint, forecaster):
    """The toy ends on 3 February 2025, a state a day."""
    forecaster.release.training["window"] = ["2024-01", "2024-10"]
    seen, unseen = search_dates(forecaster, request(checkpoint, "start=null"), 1)
    assert (len(seen), str(seen[0])[:10], str(seen[-1])[:10]) == (8, "2024-11-02", "2024-12-30")
    assert [str(day)[:10] for day in unseen[:2]] == ["2025-01-02", "2025-01-07"]
    assert len(unseen) == 7
    forecaster.release.training["test_window"] = ["2025-01-20", "2025"]
    _, unseen = search_dates(forecaster, request(checkpoint, "start=null", "unseen_start=null"), 1)
    assert str(unseen[0])[:10] == "2025-01-21"
    words = ["start=2024-12", "end=2024-12-20", "starts=2", "unseen_start=2024-12-21", "unseen_starts=3"]
    seen, unseen = search_dates(forecaster, request(checkpoint, *words), 2)
    assert [str(day)[:10] for day in seen] == ["2024-12-02", "2024-12-18"]  # two inputs, two steps
    assert [str(day)[:10] for day in unseen] == ["2024-12-22", "2024-12-27", "2025-01-01"]


def test_windows_that_overlap_are_refused(checkpoint, forecaster):
    with pytest.raises(
        ConfigError, match="overlap; a setting is evaluated on dates that the search never saw"
    ):
        search_dates(forecaster, request(checkpoint, "end=2025-01-03"), 1)


def test_a_checkpoint_that_does_not_name_its_training_window(checkpoint, forecaster):
    with pytest.raises(ConfigError, match="give start=… and end=…"):
        search_dates(forecaster, request(checkpoint, "start=null"), 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trails=3"], "trails = 3: there is no such key; did you mean 'trials'"),
        (["space.sigmamax=3"], "space.sigmamax = 3: there is no such key; did you mean 'sigma_max'"),
        (["space.sampler=[dies]"], "sampler must name some of euler"),
        (["members=1"], "members = 1: input should be greater than or equal to 2"),
        (["unseen_starts=2"], "unseen_starts = 2: input should be greater than or equal to 3"),
    ],
)
def test_wrong_keys_are_named(words, message):
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        TuneRequest.parse(["checkpoint=x", *words])


def test_a_lead_time_between_steps_is_refused(checkpoint):
    with pytest.raises(ConfigError, match="lead_time = 36h: is not a multiple of the model's step, 1d"):
        run_tune(request(checkpoint, "device=cpu", "lead_time=36h"))


def test_a_search_from_end_to_end(checkpoint, tmp_path, capsys):
    words = ["device=cpu", "members=2", "starts=3", "max_calls=5", "space.sampler=[deis,heun]"]
    words += [f"output={tmp_path}", "unseen_starts=4", "predict_kwargs.noise_scheduler_params.num_steps=6"]
    run_tune(request(checkpoint, *words, "trials=4"))
    shown = capsys.readouterr().out
    assert "4 trials of at most 5 network calls on 3 dates" in shown
    assert "heun, karras, sigma_max 100, sigma_min 0.02, rho 7, num_steps 6" in shown  # what was to be beaten
    assert "On 4 dates the score changes by" in shown
    files = {path.name for path in tmp_path.iterdir()}
    outputs = {"predict_kwargs.yaml", "trials.csv", "report.txt", "search.png"}
    assert files == outputs | {"study.journal", "scores.jsonl"}
    assert "On 4 dates the score changes by" in (tmp_path / "report.txt").read_text()
    assert len((tmp_path / "trials.csv").read_text().splitlines()) == 5

    block = yaml.safe_load((tmp_path / "predict_kwargs.yaml").read_text())["predict_kwargs"]
    asked = ForecastRequest.parse([str(tmp_path / "predict_kwargs.yaml"), "checkpoint=x", "date=2025-01-01"])
    assert asked.overrides == block
    scores = (tmp_path / "scores.jsonl").read_text()
    run_tune(request(checkpoint, *words, "trials=4"))  # nothing is computed again
    assert (tmp_path / "scores.jsonl").read_text() == scores


def test_the_setting_to_beat_must_be_valid(checkpoint, tmp_path):
    words = ["device=cpu", "predict_kwargs.sampler_params.S_chrn=1", f"output={tmp_path}"]
    with pytest.raises(ValueError, match="did you mean 'S_churn'"):
        run_tune(request(checkpoint, *words))


def test_dates_are_seconds(checkpoint, forecaster):
    seen, unseen = search_dates(forecaster, request(checkpoint), 1)
    assert {seen.dtype, unseen.dtype} == {np.dtype("datetime64[s]")}
