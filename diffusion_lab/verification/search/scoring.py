"""Scores of sampler settings on start dates, and the test of whether one setting beats another.

Before scoring, fields are divided by the mean absolute error of persistence for each variable and lead time.
The objective is then dimensionless, and 1 for a forecast no better than persistence, and variables are
weighted by how hard they are to forecast. The climatological standard deviation, with its seasons and its
contrast of pole and equator, would not do that.

All settings are scored on the same dates with the same noise (`MemberNoise`, common random numbers), so
scores differ only because of the setting.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffusion_lab.graphs import area_weights
from diffusion_lab.inference.forecaster import Forecaster
from diffusion_lab.inference.trained import ForecastModel
from diffusion_lab.sampling import SamplingSettings
from diffusion_lab.stores.store import Store
from diffusion_lab.verification.ensemble import area_mean, baseline_means, fair_crps

Objective = Callable[[Tensor, Tensor, Tensor], float]
"""(forecast (lead, ensemble, grid, variable), truth (lead, grid, variable), area weights (grid,)) → a number.

Smaller is better. Fields are float64 in units of the mean absolute error of persistence.
"""


def mean_fair_crps(forecast: Tensor, truth: Tensor, weights: Tensor) -> float:
    """Fair CRPS, averaged over the area, lead times and variables; an `Objective`."""
    return area_mean(fair_crps(forecast, truth, dim=-3), weights).mean().item()


class SettingScorer:
    """Scores sampler settings by forecasts from fixed dates, with fixed members and noise.

    Args:
        forecaster: makes the forecasts.
        starts: (start,) dates to forecast from.
        steps: forecast steps.
        members: ensemble size, 2 or more. The fair CRPS is unbiased for any size, so more dates with few
            members tell more for the same cost.
        seed: of the members' noise.
        data: see `Forecaster.reader`.
        objective: to minimise.
        folder: caches each score in `scores.jsonl` there.

    Attributes:
        starts: as given.
        persistence: (lead, variable), its mean absolute error in physical units.
        identity: what scores depend on besides the setting: weights, data, dates, members, seed.

    Raises:
        ValueError: if there is no start, or persistence has no error for a variable.
    """

    def __init__(
        self,
        forecaster: Forecaster,
        starts: Sequence[np.datetime64],
        *,
        steps: int = 1,
        members: int = 8,
        seed: int = 0,
        data: Store | str | Path | None = None,
        objective: Objective = mean_fair_crps,
        folder: str | Path | None = None,
    ) -> None:
        self.forecaster, self.steps, self.members, self.seed = forecaster, steps, members, seed
        self.objective = objective
        self.starts = np.asarray(starts, "datetime64[s]")
        if len(self.starts) == 0:
            raise ValueError("there is no start date to score on")
        reader = forecaster.reader(data)
        self._store = reader.store
        self._weights = torch.as_tensor(area_weights(forecaster.latitudes, forecaster.longitudes)).double()
        leads = np.arange(1, steps + 1) * forecaster.step
        valid: NDArray[np.datetime64] = np.add(self.starts[:, None], leads).reshape(-1)
        truth = torch.from_numpy(reader.outputs(valid))[:, 0].double()
        self._truth = truth.unflatten(0, (len(self.starts), steps))  # (start, lead, grid, variable)
        now = torch.from_numpy(reader.outputs(self.starts))[:, :1].double()
        means = baseline_means(now.expand_as(self._truth), self._truth, self._weights)
        self.persistence = means["absolute_error"].nanmean(0)
        if not (self.persistence > 0).all():
            names = forecaster.variables.output
            bad = [names[i] for i in (~(self.persistence > 0)).any(0).nonzero()[:, 0]]
            raise ValueError(f"persistence has no error for {', '.join(bad)}: constant or missing")
        self.identity = {
            "weights": _fingerprint(forecaster.model),
            "data": str(self._store.path),
            "starts": [str(start) for start in self.starts],
            "steps": steps,
            "members": members,
            "seed": seed,
            "objective": objective.__qualname__,
        }
        self._path = None if folder is None else Path(folder) / "scores.jsonl"
        self._known = _read_scores(self._path)

    def __call__(self, settings: SamplingSettings, index: int) -> float:
        """The objective of settings on start `index`.

        Raises:
            FloatingPointError: the denoiser returned NaN or infinity.
        """
        key = json.dumps([self.identity, settings.as_dict(), str(self.starts[index])], sort_keys=True)
        digest = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
        if digest not in self._known:
            self._known[digest] = self._score(settings, index)
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a") as file:
                    file.write(json.dumps({"key": digest, "score": self._known[digest]}) + "\n")
        return self._known[digest]

    def _score(self, settings: SamplingSettings, index: int) -> float:
        rollout = self.forecaster.rollout(
            self.starts[index], self.steps, self.members, self.seed, settings, self._store
        )
        forecast = torch.from_numpy(np.stack(list(rollout.states()))).double()
        scale = self.persistence[:, None]
        return self.objective(forecast / scale[:, None], self._truth[index] / scale, self._weights)


@dataclass(frozen=True)
class Comparison:
    """Two settings on the same dates.

    Attributes:
        starts: (start,) dates.
        scores: (start,) of the candidate.
        reference: (start,) of the reference.
        difference: mean of scores − reference; below 0 the candidate is better.
        interval: its 95 % confidence interval.
        confidence: that its expectation is below 0.
    """

    starts: NDArray[np.datetime64]
    scores: NDArray[np.float64]
    reference: NDArray[np.float64]
    difference: float
    interval: tuple[float, float]
    confidence: float

    @property
    def verdict(self) -> str:
        """The comparison in a sentence."""
        percent = 100 / self.reference.mean()
        low, high = (percent * bound for bound in self.interval)
        word = "better" if high < 0 else "worse" if low > 0 else "no difference that these dates can show"
        return (
            f"On {len(self.starts)} dates the score changes by {percent * self.difference:+.2f} % "
            f"(95 % interval {low:+.2f} … {high:+.2f} %): {word}; lower with confidence "
            f"{self.confidence:.3f}."
        )


def compare_scores(
    starts: NDArray[np.datetime64],
    scores: NDArray[np.float64],
    reference: NDArray[np.float64],
    lead_time: np.timedelta64,
) -> Comparison:
    """Test whether scores are lower than those of a reference on the same dates.

    The Diebold-Mariano test of Harvey, Leybourne & Newbold (1997, Int. J. Forecasting 13) with Student's t,
    from the `scores` library: a paired t-test that allows for forecasts overlapping in time. A block
    bootstrap needs many dates; the t-test holds for a dozen, as each difference is a global average and so
    nearly normal.

    Args:
        starts: (start,) ascending, evenly spaced dates, three or more.
        scores: (start,) of the candidate.
        reference: (start,) of the reference.
        lead_time: of the forecasts' last step.

    Raises:
        ValueError: if there are fewer than three dates, or they overlap too much.
    """
    import xarray as xr
    from scores.stats.statistical_tests import diebold_mariano

    if len(starts) < 3:
        raise ValueError(f"a paired test needs three start dates or more, not {len(starts)}")
    horizon = math.ceil(lead_time / np.diff(starts).min())
    if horizon >= len(starts):
        raise ValueError(f"{len(starts)} starts within {horizon} lead times are too few; space them further")
    difference = np.asarray(scores) - np.asarray(reference)
    if np.ptp(difference) == 0:  # the same setting, say
        mean = float(difference[0])
        confidence = 0.5 if mean == 0 else float(mean < 0)
        return Comparison(starts, scores, reference, mean, (mean, mean), confidence)
    coords = {"series": [0], "h": ("series", [horizon])}
    series = xr.DataArray(difference[None], coords, ("series", "start"))
    test = diebold_mariano(series, "series", "h", method="HLN", statistic_distribution="t").isel(series=0)
    low, high = sorted([float(test.ci_lower), float(test.ci_upper)])
    confidence = 1 - float(test.confidence_gt_0)
    return Comparison(starts, scores, reference, float(test["mean"]), (low, high), confidence)


def _read_scores(path: Path | None) -> dict[str, float]:
    known = {}
    if path is not None and path.is_file():
        for line in path.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):  # a line whose writing was interrupted
                entry = json.loads(line)
                known[entry["key"]] = entry["score"]
    return known


def _fingerprint(model: ForecastModel) -> str:
    """A hash of the weights: a checkpoint may be replaced by another with the same name."""
    digest = hashlib.blake2b(digest_size=8)
    for weight in model.parameters():
        digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
