"""The sampler search, with Optuna.

    result = search_sampler(load_forecaster("example-tendency"), dates, budget=60, max_calls=20)
    forecaster.rollout(date, steps=10, members=16, settings=result.settings).dataset()

Optuna's TPE proposes settings, and `SettingScorer` scores them. There is one objective; the Pareto front of
score against cost follows from the trials. With two objectives, Optuna would spread its trials along the
whole front and could not stop bad ones early. A trial is stopped when it lags behind those with *no more*
calls, so cheap settings are not compared with expensive ones.

With a `folder`, a search can be stopped at any moment and continued by another call. The random numbers of a
trial depend only on the seed and the number of trials before it, so the result is the same.
"""

from __future__ import annotations

import json
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

import numpy as np
import optuna
import pandas as pd
import yaml
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from diffusion_lab.inference.forecaster import Forecaster
from diffusion_lab.sampling import SamplingSettings
from diffusion_lab.stores.store import Store
from diffusion_lab.verification.search.scoring import Objective, SettingScorer, mean_fair_crps
from diffusion_lab.verification.search.space import SearchSpace, network_calls

_STARTUP_TRIALS = 10  # random or guessed, before TPE models the results
_DATES_BEFORE_STOPPING, _TRIALS_BEFORE_STOPPING = 2, 3


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Attributes:
        study: of Optuna, for its tools.
        settings: the best ones.
        score: their mean objective over the dates searched; the best of many, so biased low.
        calls: their network calls for a forecast step.
    """

    study: optuna.Study
    settings: SamplingSettings
    score: float
    calls: int

    @property
    def yaml(self) -> str:
        """The best settings as the `predict_kwargs` block of an inference config."""
        return yaml.safe_dump({"predict_kwargs": self.settings.predict_kwargs}, sort_keys=False)

    def settings_of(self, trial: int) -> SamplingSettings:
        """The settings of a trial, by its number in `trials`."""
        return _settings(finished(self.study)[trial])

    @property
    def trials(self) -> pd.DataFrame:
        """A row for each trial: number, state, score (the mean so far if stopped), calls and all settings."""
        rows: list[dict[str, Any]] = []
        for trial in finished(self.study):
            settings, seen = _settings(trial), trial.intermediate_values
            row = {
                "trial": len(rows),
                "state": "complete" if trial.state == TrialState.COMPLETE else "stopped",
                "dates": len(seen),
                "score": seen[max(seen)] if seen else np.nan,
                "calls": trial.user_attrs["calls"],
            }
            rows.append({**row, **settings.diffusion_sampler, **settings.noise_scheduler})
        return pd.DataFrame(rows)

    @property
    def pareto_front(self) -> pd.DataFrame:
        """The complete trials that no other with as many or fewer calls beats, by calls."""
        done = self.trials.query("state == 'complete'").sort_values(["calls", "score"])
        return done[done["score"] < done["score"].cummin().shift(fill_value=np.inf)]

    @property
    def importance(self) -> dict[str, float]:
        """Importance of each parameter for being among the best tenth of trials, summing to 1.

        PED-ANOVA (Watanabe et al. 2023, arXiv:2304.10255), in its form for conditional parameters. Empty if
        too few trials are complete.
        """
        if len(_complete(self.study)) < _STARTUP_TRIALS:
            return {}
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        return optuna.importance.get_param_importances(self.study, evaluator=evaluator)


def search_sampler(
    forecaster: Forecaster,
    dates: Sequence[np.datetime64],
    space: SearchSpace | None = None,
    budget: int = 60,
    *,
    max_calls: int = 20,
    minutes: float | None = None,
    steps: int = 1,
    members: int = 8,
    seed: int = 0,
    data: Store | str | Path | None = None,
    objective: Objective = mean_fair_crps,
    folder: str | Path | None = None,
    progress: bool = True,
) -> SearchResult:
    """Find the sampler setting with the best score that needs at most `max_calls` network calls.

    Args:
        forecaster: makes the forecasts.
        dates: (start,) dates to score on. Evaluate the result on others.
        space: what to choose from; `SearchSpace()` by default.
        budget: total number of trials, including those of earlier calls in the same folder.
        max_calls: limit of network calls for a forecast step.
        minutes: time after which no trial begins.
        steps: forecast steps.
        members: ensemble size.
        seed: of the members' noise, which is the same in all trials, and of the search.
        data: see `Forecaster.reader`.
        objective: to minimise, see `scoring.Objective`.
        folder: of the study (`study.journal`) and all scores; None keeps them in memory.
        progress: show a bar with the best so far.

    Raises:
        ValueError: no setting of the space is within `max_calls`, or the folder holds another search.
    """
    space = (space or SearchSpace()).within(max_calls)
    options: dict[str, Any] = {"steps": steps, "members": members, "seed": seed, "data": data}
    scorer = SettingScorer(forecaster, dates, objective=objective, folder=folder, **options)
    identity = scorer.identity | {"max_calls": max_calls, "space": space.model_dump(mode="json")}
    began, guesses = monotonic(), space.guesses(max_calls)
    with _quiet(), _bar(progress) as bar:
        study = _open_study(None if folder is None else Path(folder), identity)
        task = bar.add_task("trials", total=budget, best=_best_line(study))
        while (count := len(finished(study))) < budget:
            bar.update(task, completed=count, best=_best_line(study))
            if count > 0 and minutes is not None and monotonic() - began > 60 * minutes:
                break
            study.sampler = optuna.samplers.TPESampler(
                seed=seed + count, n_startup_trials=_STARTUP_TRIALS, multivariate=True, group=True
            )
            if count < len(guesses):
                study.enqueue_trial(guesses[count])
            _run_trial(study, scorer, space, max_calls, advance=lambda part: bar.advance(task, part))
        bar.update(task, completed=len(finished(study)), best=_best_line(study))
    return _result(study)


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that are complete or were stopped early, without those that were interrupted."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def _complete(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _settings(trial: FrozenTrial) -> SamplingSettings:
    return SamplingSettings(**trial.user_attrs["settings"])


def _run_trial(
    study: optuna.Study,
    scorer: SettingScorer,
    space: SearchSpace,
    max_calls: int,
    advance: Callable[[float], None],
) -> None:
    """Score one setting on date after date until it lags behind."""
    trial = study.ask()
    settings = space.suggest(trial, max_calls, scorer.forecaster.settings)
    calls = network_calls(settings)
    trial.set_user_attr("settings", settings.as_dict())
    trial.set_user_attr("calls", calls)
    scores: list[float] = []
    # In random order: the first few dates should not all be in one season.
    for index in np.random.default_rng(scorer.seed).permutation(len(scorer.starts)):
        try:
            scores.append(scorer(settings, int(index)))
        except FloatingPointError:  # a setting that blows up is a bad setting
            study.tell(trial, state=TrialState.PRUNED)
            return
        trial.report(float(np.mean(scores)), len(scores))
        advance(1 / len(scorer.starts))
        if len(scores) < len(scorer.starts) and _lags(study, calls, scores):
            study.tell(trial, state=TrialState.PRUNED)
            return
    study.tell(trial, float(np.mean(scores)))


def _lags(study: optuna.Study, calls: int, scores: Sequence[float]) -> bool:
    """Whether the mean so far is above the median of the trials with no more calls, on the same dates."""
    rivals = [
        trial.intermediate_values[len(scores)]
        for trial in _complete(study)
        if trial.user_attrs["calls"] <= calls
    ]
    enough = len(scores) >= _DATES_BEFORE_STOPPING and len(rivals) >= _TRIALS_BEFORE_STOPPING
    return enough and float(np.mean(scores)) > median(rivals)


def _open_study(folder: Path | None, identity: dict) -> optuna.Study:
    """A new study, or the one in the folder if it belongs to the same search."""
    if folder is None:
        return optuna.create_study()
    folder.mkdir(parents=True, exist_ok=True)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    study = optuna.create_study(storage=storage, study_name="search", load_if_exists=True)
    known = study.user_attrs.setdefault("search", identity)
    for key, value in json.loads(json.dumps(identity)).items():
        if known[key] != value:
            before, now = (textwrap.shorten(str(one), 40, placeholder="…") for one in (known[key], value))
            found = f"{folder} holds a search with another {key} ({before}, now {now})"
            raise ValueError(f"{found}; choose another folder, or delete it")
    study.set_user_attr("search", identity)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING)):
        study.tell(trial.number, state=TrialState.FAIL)  # interrupted
    return study


def _result(study: optuna.Study) -> SearchResult:
    if not _complete(study):
        raise ValueError("no trial is complete; give the search more budget or another space")
    best = study.best_trial
    return SearchResult(study, _settings(best), study.best_value, best.user_attrs["calls"])


def _best_line(study: optuna.Study) -> str:
    if not _complete(study):
        return ""
    best = study.best_trial
    return f"best {study.best_value:.4f}: {best.params['sampler']}, {best.user_attrs['calls']} calls"


def _bar(shown: bool) -> Progress:
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TextColumn("{task.fields[best]}"), transient=True, disable=not shown)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Optuna's line for every study and trial, and its warnings of experimental features."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
