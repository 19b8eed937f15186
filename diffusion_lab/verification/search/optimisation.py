"""The sampler search: which schedule and solver make the best ensemble for a given number of network calls.

    result = search_sampler(load_forecaster("example-tendency"), dates, budget=60, max_calls=20)
    forecaster.rollout(date, steps=10, members=16, settings=result.settings).dataset()

Optuna's TPE proposes settings, the scores of `SettingScorer` tell it how they did. One objective is searched,
not two: the front of score against cost is read off the trials afterwards. A search with two objectives would
spend its trials along the whole front, cannot stop bad trials early, and asks for a decision that the limit
`max_calls` has already taken. A trial is stopped when it lags behind those that needed *no more* calls, so
that cheap settings, which the front is made of, are not held against expensive ones.

In a `folder` a search can be stopped at any moment and goes on when it is called again: each trial's random
numbers depend on the seed and the number of trials before it alone, so it ends where it would have anyway.
"""

from __future__ import annotations

import json
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

_STARTUP_TRIALS = 10  # random ones, among them the first guesses, before TPE models what was seen
_DATES_BEFORE_STOPPING, _TRIALS_BEFORE_STOPPING = 2, 3
_DONE = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        study: Optuna's, for its own tools.
        settings: the best ones.
        score: its objective, averaged over the dates searched on: the best of many, so flattered by chance.
        calls: network calls it needs for a forecast step.
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
            settings = _settings(trial)
            seen = trial.intermediate_values
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
        """The complete trials that no other beats in score with as many or fewer calls, by calls."""
        done = self.trials.query("state == 'complete'").sort_values(["calls", "score"])
        return done[done["score"] < done["score"].cummin().shift(fill_value=np.inf)]

    @property
    def importance(self) -> dict[str, float]:
        """How much each parameter decided whether a trial was among the best tenth, in parts of 1.

        PED-ANOVA (Watanabe et al. 2023, arXiv:2304.10255), in its form for parameters that not all trials
        have. Empty where too few trials were run to the end to tell.
        """
        complete = [t for t in self.study.trials if t.state == TrialState.COMPLETE]
        if len(complete) < _STARTUP_TRIALS:
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
        dates: (start,) dates to score on. Keep others apart to judge the result by.
        space: what to choose from; `SearchSpace()` if left out.
        budget: trials in all, those of earlier calls in the same folder included.
        max_calls: most network calls for a forecast step; settings that need more are never run.
        minutes: begin no trial after so long, whatever the budget.
        steps: forecast steps.
        members: ensemble size.
        seed: of the members' noise, which is the same in all trials, and of the search.
        data: store, path or shipped name; None for the one the checkpoint names.
        objective: what is to be small, see `scoring.Objective`.
        folder: of the study (`study.journal`) and all scores; None keeps them in memory.
        progress: show a bar with the best so far.

    Returns:
        The best setting and all trials.

    Raises:
        ValueError: no setting of the space is within `max_calls`, or the folder holds another search.
    """
    space = (space or SearchSpace()).within(max_calls)
    scorer = SettingScorer(
        forecaster,
        dates,
        steps=steps,
        members=members,
        seed=seed,
        data=data,
        objective=objective,
        folder=folder,
    )
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
    """The trials that were run to the end or stopped for being worse, not those that were interrupted."""
    return study.get_trials(deepcopy=False, states=_DONE)


def _settings(trial: FrozenTrial) -> SamplingSettings:
    return SamplingSettings(**trial.user_attrs["settings"])


def _run_trial(
    study: optuna.Study,
    scorer: SettingScorer,
    space: SearchSpace,
    max_calls: int,
    advance: Callable[[float], None],
) -> None:
    """Score one setting on one date after the other, unless it lags behind."""
    trial = study.ask()
    settings = space.suggest(trial, max_calls, scorer.forecaster.settings)
    calls = network_calls(settings)
    trial.set_user_attr("settings", settings.as_dict())
    trial.set_user_attr("calls", calls)
    scores: list[float] = []
    # In random order: the first few dates should not all be of one season.
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
    """Whether the mean so far is above the median of those that needed no more calls, on the same dates."""
    rivals = [
        trial.intermediate_values[len(scores)]
        for trial in finished(study)
        if trial.state == TrialState.COMPLETE and trial.user_attrs["calls"] <= calls
    ]
    enough = len(scores) >= _DATES_BEFORE_STOPPING and len(rivals) >= _TRIALS_BEFORE_STOPPING
    return enough and float(np.mean(scores)) > median(rivals)


def _open_study(folder: Path | None, identity: dict) -> optuna.Study:
    """A new study, or the one that the folder holds, if it is of the same search."""
    if folder is None:
        return optuna.create_study()
    folder.mkdir(parents=True, exist_ok=True)
    journal = JournalFileBackend(str(folder / "study.journal"))
    storage = optuna.storages.JournalStorage(journal)
    study = optuna.create_study(storage=storage, study_name="search", load_if_exists=True)
    known = study.user_attrs.setdefault("search", identity)
    for key, value in json.loads(json.dumps(identity)).items():
        if known[key] != value:
            raise ValueError(
                f"{folder} holds a search with another {key} ({_short(known[key])}, now {_short(value)}); "
                "choose another folder, or delete it"
            )
    study.set_user_attr("search", identity)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING)):
        study.tell(trial.number, state=TrialState.FAIL)  # interrupted
    return study


def _result(study: optuna.Study) -> SearchResult:
    if not any(trial.state == TrialState.COMPLETE for trial in finished(study)):
        raise ValueError("no trial was run to its end; give the search more budget or another space")
    best = study.best_trial
    return SearchResult(study, _settings(best), study.best_value, best.user_attrs["calls"])


def _best_line(study: optuna.Study) -> str:
    complete = [trial for trial in finished(study) if trial.state == TrialState.COMPLETE]
    if not complete:
        return ""
    best = study.best_trial
    return f"best {study.best_value:.4f}: {best.params['sampler']}, {best.user_attrs['calls']} calls"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}…"


def _bar(shown: bool) -> Progress:
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TextColumn("{task.fields[best]}"), transient=True, disable=not shown)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's line for every study and trial, and its notes on what is experimental."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
