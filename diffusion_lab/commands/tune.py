"""What `diffusion-lab tune` is asked for, and how it is done."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from matplotlib.figure import Figure
from pydantic import Field, PositiveInt
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from diffusion_lab import plots
from diffusion_lab.commands.requests import Request, evaluation_window, steps_of
from diffusion_lab.config import ConfigError, Date, Lead
from diffusion_lab.inference.forecaster import Forecaster, load_forecaster
from diffusion_lab.sampling import PRESETS, SamplingSettings
from diffusion_lab.stores.dates import lead_timedelta, period, spread_out
from diffusion_lab.stores.module import forecast_starts as possible_starts
from diffusion_lab.verification.search.optimisation import SearchResult, search_sampler
from diffusion_lab.verification.search.scoring import (
    Comparison,
    SettingScorer,
    compare_scores,
)
from diffusion_lab.verification.search.space import SearchSpace, describe, network_calls


class TuneRequest(Request):
    """Keys of `diffusion-lab tune`; `predict_kwargs` changes the setting that is to be beaten."""

    checkpoint: str
    trials: PositiveInt = 60
    max_calls: PositiveInt = 20
    minutes: Annotated[float, Field(gt=0)] | None = None
    members: Annotated[int, Field(ge=2)] = 8
    lead_time: Lead = "1d"
    start: Date | None = None
    end: Date | None = None
    starts: PositiveInt = 8
    unseen_start: Date | None = None
    unseen_end: Date | None = None
    unseen_starts: Annotated[int, Field(ge=3)] = 13
    unseen_every: Lead = "28d"
    space: SearchSpace = SearchSpace()
    output: str = "tuning"


def run_tune(request: TuneRequest) -> None:
    """Search, judge what was found on dates that the search never saw, print and write it all."""
    forecaster = load_forecaster(request.checkpoint, request.device)
    steps = steps_of(forecaster, request.lead_time)
    folder, guide = Path(request.output), PRESETS["guide"].predict_kwargs
    reference = forecaster.settings.override(**guide).override(**request.overrides)
    seen, unseen = search_dates(forecaster, request, int(steps))
    common = {
        "steps": int(steps),
        "members": request.members,
        "seed": request.seed,
        "data": request.data,
        "folder": folder,
    }
    console = Console()
    console.print(
        f"{request.trials} trials of at most {request.max_calls} network calls on {len(seen)} dates, "
        f"{seen[0]} to {seen[-1]}, in {folder.resolve()}",
        highlight=False,
    )
    result = search_sampler(
        forecaster,
        seen,
        request.space,
        request.trials,
        max_calls=request.max_calls,
        minutes=request.minutes,
        **common,
    )
    (folder / "predict_kwargs.yaml").write_text(_explained(result, request))
    result.trials.to_csv(folder / "trials.csv", index=False)
    scorer = SettingScorer(forecaster, unseen, **common)
    comparisons = _compare(scorer, result, reference)
    tables = _tables(result, comparisons, reference, scorer)
    with (folder / "report.txt").open("w") as file:
        for out in (console, Console(file=file, width=160)):
            out.print(*tables, sep="\n\n", highlight=False)
    _draw(result, comparisons, network_calls(reference)).savefig(folder / "search.png", dpi=110)
    console.print(f"predict_kwargs.yaml, trials.csv, report.txt, search.png: {folder.resolve()}")


def search_dates(forecaster: Forecaster, request: TuneRequest, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The dates to search on and those to judge by: two windows that share no date.

    By default the first is what lies between the training window that the checkpoint names and the second,
    and the second is the test window that it names, or else 2025.

    Raises:
        ConfigError: the windows overlap, hold no date, or the checkpoint names no training window.
    """
    store = forecaster.reader(request.data).store
    judged = evaluation_window(forecaster, request.unseen_start, request.unseen_end)
    first, last = _window("unseen_start", *judged)
    trained = forecaster.release.training.get("window")
    if request.start is None and trained is None:
        raise ConfigError("the checkpoint does not say what it was trained on; give start=… and end=…")
    second = np.timedelta64(1, "s")
    start = request.start or str(period(*trained)[1] + second)
    window = _window("start", start, request.end or str(first - second))
    if window[0] <= last and first <= window[1]:
        raise ConfigError(
            f"the search from {window[0]} to {window[1]} and the unseen dates from {first} to {last} "
            "overlap; a setting is judged on dates that the search never saw"
        )

    def starts(window: tuple[np.datetime64, np.datetime64]) -> np.ndarray:
        dates = possible_starts(store, forecaster.step, forecaster.model.multistep_input, window)
        return dates[dates + (steps - 1) * forecaster.step <= dates[-1]]

    seen = spread_out(starts(window), request.starts)
    unseen = spread_out(starts((first, last)), request.unseen_starts, lead_timedelta(request.unseen_every))
    return seen, unseen


def _window(key: str, start: str, end: str) -> tuple[np.datetime64, np.datetime64]:
    try:
        return period(start, end)
    except ValueError as error:
        raise ConfigError(f"{key}={start}: {error}") from None


def _compare(
    scorer: SettingScorer, result: SearchResult, reference: SamplingSettings
) -> list[tuple[SamplingSettings, Comparison]]:
    """Each setting of the front against the reference, by calls; the last is the search's best."""
    front = [result.settings_of(trial) for trial in result.pareto_front["trial"]]
    dates = range(len(scorer.starts))
    calls = sum(network_calls(settings) for settings in [*front, reference])
    with Progress(transient=True) as bar:
        task = bar.add_task("unseen dates", total=calls * len(dates))

        def scores(settings: SamplingSettings) -> np.ndarray:
            values = []
            for index in dates:
                values.append(scorer(settings, index))
                bar.advance(task, network_calls(settings))
            return np.array(values)

        of_reference, lead_time = scores(reference), scorer.steps * scorer.forecaster.step
        return [(k, compare_scores(scorer.starts, scores(k), of_reference, lead_time)) for k in front]


def _tables(
    result: SearchResult,
    comparisons: list[tuple[SamplingSettings, Comparison]],
    reference: SamplingSettings,
    scorer: SettingScorer,
) -> list[Table | str]:
    found, last = comparisons[-1]
    table = Table(
        title=f"fair CRPS / MAE of persistence on {len(last.starts)} dates that the search never saw"
    )
    for name in ("calls", "searched", "unseen", "− default", "95 % interval", "setting"):
        table.add_column(name, justify="left" if name == "setting" else "right")
    for (settings, test), searched in zip(comparisons, result.pareto_front["score"], strict=True):
        numbers = [f"{searched:.4f}", f"{test.scores.mean():.4f}", f"{test.difference:+.4f}"]
        interval = "{:+.4f} … {:+.4f}".format(*test.interval)
        table.add_row(str(network_calls(settings)), *numbers, interval, describe(settings))
    table.add_section()
    of_default = f"{last.reference.mean():.4f}"
    table.add_row(str(network_calls(reference)), "", of_default, "", "", f"default: {describe(reference)}")
    verdict = (
        f"{network_calls(found)} calls, {describe(found)}: {last.scores.mean():.4f}\n"
        f"{network_calls(reference)} calls, {describe(reference)}: {of_default}\n{last.verdict}"
    )
    return [table, verdict, result.yaml]


def _explained(result: SearchResult, request: TuneRequest) -> str:
    return (
        f"# Of {len(result.trials)} trials with {request.checkpoint} the best within {request.max_calls} "
        f"network calls ({result.calls}):\n# score {result.score:.4f} on the dates searched. Use it as\n"
        f"#   diffusion-lab forecast predict_kwargs.yaml checkpoint={request.checkpoint} date=…\n"
        f"{result.yaml}"
    )


def _draw(result: SearchResult, comparisons: list[tuple[SamplingSettings, Comparison]], calls: int) -> Figure:
    figure = Figure(figsize=(13, 8.5), layout="constrained")
    history, front, importance, paired = figure.subplots(2, 2).flat
    plots.optimisation_history(history, result.trials)
    plots.pareto_front(front, result.trials, result.pareto_front)
    plots.parameter_importance(importance, result.importance)
    tests = [test for _, test in comparisons]
    plots.paired_differences(
        paired,
        list(result.pareto_front["calls"]),
        [test.difference for test in tests],
        [test.interval for test in tests],
        tests[-1].reference.mean(),
        calls,
    )
    titles = ("trials", "dates searched", "parameters", "dates never searched")
    for ax, title in zip((history, front, importance, paired), titles, strict=True):
        ax.set_title(title, loc="left", fontsize="medium")
    return figure
