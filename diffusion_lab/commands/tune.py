"""`diffusion-lab tune`: a search for the best sampler setting, and its evaluation on unseen dates."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
from matplotlib.figure import Figure
from pydantic import Field, PositiveInt
from rich.console import Console
from rich.progress import track
from rich.table import Table

from diffusion_lab import plots
from diffusion_lab.commands.console import console
from diffusion_lab.commands.requests import EnsembleRequest, PredictKwargs, evaluation_window, steps_of
from diffusion_lab.config import ConfigError, Date, Lead
from diffusion_lab.inference.forecaster import Forecaster, load_forecaster
from diffusion_lab.sampling import PRESETS, SamplingSettings
from diffusion_lab.stores.dates import Period, period, spread_out
from diffusion_lab.stores.module import forecast_starts
from diffusion_lab.verification.search.optimisation import SearchResult, search_sampler
from diffusion_lab.verification.search.scoring import Comparison, SettingScorer, compare_scores
from diffusion_lab.verification.search.space import SearchSpace, describe, network_calls


class TuneRequest(EnsembleRequest):
    """Search for the sampler setting that makes the best ensemble for the network calls you can afford.

      diffusion-lab tune checkpoint=example-tendency
      diffusion-lab tune checkpoint=example-tendency max_calls=10 trials=100 minutes=30 output=cheap
      diffusion-lab tune checkpoint=example-tendency "space.sampler=[deis,heun]" "space.sigma_max=[20,80]"
      diffusion-lab forecast tuning/predict_kwargs.yaml checkpoint=example-tendency date=2025-01-01

    A setting's score is the fair CRPS in units of persistence's mean absolute error, averaged over variables:
    0 is perfect, 1 as good as persistence. Optuna proposes settings; all are scored on the same dates with
    the same noise, and those that lag behind are stopped. Finally the best of each cost is compared with a
    default, 50 steps of Heun's method without churn (99 calls), on dates that the search never saw: those of
    the checkpoint's test window, or of 2025. If it is stopped, the same command resumes; with more trials= it
    continues the search.
    """

    checkpoint: str = Field(description="a released name or a path")
    trials: PositiveInt = Field(60, description="settings to try in all")
    minutes: Annotated[float, Field(gt=0)] | None = Field(None, description="start no trial after this time")
    max_calls: PositiveInt = Field(20, description="network calls allowed for a forecast step")
    members: Annotated[int, Field(ge=2)] = Field(8, description="ensemble size")
    lead_time: Lead = Field(np.timedelta64(1, "D"), description="how far to forecast")
    start: Date | None = Field(None, description="first date of the search; default: after training")
    end: Date | None = Field(None, description="last date of the search; default: before the unseen dates")
    starts: PositiveInt = Field(8, description="dates to search on")
    unseen_start: Date | None = Field(None, description="first date to evaluate on; default: test window")
    unseen_end: Date | None = Field(None, description="last date to evaluate on; default: test window")
    unseen_starts: Annotated[int, Field(ge=3)] = Field(13, description="dates to evaluate on")
    unseen_every: Lead = Field(np.timedelta64(28, "D"), description="time between them")
    space: SearchSpace = Field(SearchSpace(), description="names, and ranges [low,high] or fixed values")
    predict_kwargs: PredictKwargs = Field(PredictKwargs(), description="changes to the default to beat")
    output: Path = Field(Path("tuning"), description="folder of predict_kwargs.yaml, report, trials, study")


def run_tune(request: TuneRequest) -> None:
    """Search, evaluate the result on dates that the search never saw, print and write both."""
    forecaster = load_forecaster(request.checkpoint, request.device)
    steps = steps_of(forecaster, request.lead_time)
    folder, guide = request.output, PRESETS["guide"].predict_kwargs
    reference = forecaster.settings.override(**guide).override(**request.overrides)
    seen, unseen = search_dates(forecaster, request, steps)
    common = {"steps": steps, "folder": folder, **request.model_dump(include={"members", "seed", "data"})}
    out = console()
    out.print(
        f"{request.trials} trials of at most {request.max_calls} network calls on {len(seen)} dates, "
        f"{seen[0]} to {seen[-1]}, in {folder.resolve()}"
    )
    limits = request.model_dump(include={"max_calls", "minutes"})
    result = search_sampler(forecaster, list(seen), request.space, request.trials, **limits, **common)
    (folder / "predict_kwargs.yaml").write_text(
        f"# Of {len(result.trials)} trials with {request.checkpoint} the best within {request.max_calls} "
        f"network calls ({result.calls}):\n# score {result.score:.4f} on the dates searched. Use it as\n"
        f"#   diffusion-lab forecast predict_kwargs.yaml checkpoint={request.checkpoint} date=…\n"
        f"{result.yaml}"
    )
    result.trials.to_csv(folder / "trials.csv", index=False)
    comparisons = _compare(SettingScorer(forecaster, list(unseen), **common), result, reference)
    tables = _tables(result, comparisons, reference)
    with (folder / "report.txt").open("w") as file:
        for each in (out, Console(file=file, width=10_000)):
            each.print(*tables, sep="\n\n", highlight=False)
    _draw(result, comparisons, network_calls(reference)).savefig(folder / "search.png", dpi=110)
    out.print(f"predict_kwargs.yaml, trials.csv, report.txt, search.png: {folder.resolve()}")


def search_dates(forecaster: Forecaster, request: TuneRequest, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The dates to search on and those to evaluate on, from two windows that share no date.

    By default the second is the checkpoint's test window, or else 2025, and the first lies between its
    training window and the second.

    Raises:
        ConfigError: the windows overlap or hold no date, or the checkpoint names no training window.
    """
    store = forecaster.reader(request.data).store
    evaluation = evaluation_window(forecaster, request.unseen_start, request.unseen_end)
    start, end, second = request.start, request.end, np.timedelta64(1, "s")
    if start is None:
        if (trained := forecaster.release.training.get("window")) is None:
            raise ConfigError("the checkpoint does not say what it was trained on; give start=… and end=…")
        start = period(*trained).last + second
    try:
        search = period(start, evaluation.first - second if end is None else end)
    except ValueError as error:
        raise ConfigError(f"start = {start}: {error}") from None
    if search.first <= evaluation.last and evaluation.first <= search.last:
        raise ConfigError(
            f"the search from {search.first} to {search.last} and the unseen dates from {evaluation.first} "
            f"to {evaluation.last} overlap; a setting is evaluated on dates that the search never saw"
        )

    def starts(window: Period) -> np.ndarray:
        dates = forecast_starts(store, forecaster.step, forecaster.model.multistep_input, window)
        return dates[dates + (steps - 1) * forecaster.step <= dates[-1]]

    unseen = spread_out(starts(evaluation), request.unseen_starts, request.unseen_every)
    return spread_out(starts(search), request.starts), unseen


def _compare(
    scorer: SettingScorer, result: SearchResult, reference: SamplingSettings
) -> list[tuple[SamplingSettings, Comparison]]:
    """Each setting of the front against the reference, by calls; the last is the search's best."""
    front = [result.settings_of(trial) for trial in result.pareto_front["trial"]]
    count, lead_time = len(scorer.starts), scorer.steps * scorer.forecaster.step
    jobs = list(product([reference, *front], range(count)))
    scores = [scorer(*job) for job in track(jobs, "unseen dates", transient=True)]
    default, *found = np.reshape(scores, (-1, count))
    comparisons = [compare_scores(scorer.starts, values, default, lead_time) for values in found]
    return list(zip(front, comparisons, strict=True))


def _tables(
    result: SearchResult, comparisons: list[tuple[SamplingSettings, Comparison]], reference: SamplingSettings
) -> list[Table | str]:
    found, last = comparisons[-1]
    table = Table(title=f"fair CRPS / MAE of persistence on {len(last.starts)} unseen dates")
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


def _draw(result: SearchResult, comparisons: list[tuple[SamplingSettings, Comparison]], calls: int) -> Figure:
    figure = Figure(figsize=(13, 8.5), layout="constrained")
    history, front, importance, paired = figure.subplots(2, 2).flat
    plots.optimisation_history(history, result.trials)
    plots.pareto_front(front, result.trials, result.pareto_front)
    plots.parameter_importance(importance, result.importance)
    tests, costs = [test for _, test in comparisons], list(result.pareto_front["calls"])
    differences, intervals = [test.difference for test in tests], [test.interval for test in tests]
    plots.paired_differences(paired, costs, differences, intervals, tests[-1].reference.mean(), calls)
    titles = ("trials", "dates searched", "parameters", "dates never searched")
    for ax, title in zip((history, front, importance, paired), titles, strict=True):
        ax.set_title(title, loc="left", fontsize="medium")
    return figure
