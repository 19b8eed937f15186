"""Scores of labelled ensemble forecasts against the truth and against simple forecasts.

All numbers come from the `scores` library (doi:10.21105/joss.06889). Forecasts are datasets with a variable
for each field, of dimensions (time, ensemble, cell) with a lead time for each time, or (start, lead_time,
ensemble, cell) for several starts.
"""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from scores.continuous import additive_bias, mae, mse
from scores.probability import crps_for_ensemble
from scores.probability import rank_histogram as count_ranks

from diffusion_lab.verification.layout import by_lead_time


def case_means(
    forecast: xr.Dataset, truth: xr.Dataset, weights: ArrayLike, baselines: Mapping[str, xr.Dataset]
) -> xr.Dataset:
    """Area-weighted means for each case, which may be averaged over starts and then given to `summarise`.

    One variable is read at a time, so that a lazily opened forecast need not fit into memory whole.

    Args:
        forecast: (start, lead_time, ensemble, cell) or (time, ensemble, cell), of two members or more.
        truth: the forecast's variables with dimensions (start, lead_time, cell), see `fields_like`.
        weights: (cell,) area weights, of any sum.
        baselines: single forecasts by name, laid out like `truth`.

    Returns:
        (start, variable, lead_time): `fair_crps`, `squared_error` and `bias` of the ensemble mean,
        `variance` (ddof = 1), and for each baseline `<name>_absolute_error` and `<name>_squared_error`;
        the coordinate `units` (variable) and the attribute `num_members`.

    Raises:
        ValueError: if there are fewer than two members, or the weights do not fit the cells.
        KeyError: if `truth` or a baseline lacks a variable of the forecast.
    """
    forecast, weights = by_lead_time(forecast), _cell_weights(forecast, weights)
    _check_variables(forecast, {"truth": truth, **baselines})
    truth = by_lead_time(truth)
    baselines = {name: by_lead_time(baseline) for name, baseline in baselines.items()}

    names = [str(name) for name in forecast.data_vars]
    # numbagg, where it is installed, compiles for seconds to save milliseconds.
    with xr.set_options(use_numbagg=False):
        variables = [
            _variable_means(forecast[name], truth[name], {k: v[name] for k, v in baselines.items()}, weights)
            for name in names
        ]
    means = xr.concat(variables, xr.Variable("variable", names))
    units = [forecast[name].attrs.get("units", "1") for name in names]
    means = means.assign_coords(units=("variable", units)).assign_attrs(
        num_members=forecast.sizes["ensemble"]
    )
    return means.transpose("start", "variable", "lead_time")


def summarise(means: xr.Dataset) -> xr.Dataset:
    """Scores from case means: averages over starts first, then roots and ratios.

    Args:
        means: from `case_means`, of all starts or a choice of them.

    Returns:
        (variable, lead_time): `fair_crps`, `rmse` of the ensemble mean, `spread` and `bias` in the field's
        units, `spread_skill` = √((M + 1)/M · mean variance / mean squared error), which is 1 for members
        exchangeable with the truth (Fortin et al. 2014, doi:10.1175/JHM-D-14-0008.1), and for each baseline
        `<name>_mae` and `<name>_rmse`.
    """
    num_members = means.attrs["num_members"]
    mean = means.mean("start", keep_attrs=True)
    scores = {
        "fair_crps": mean["fair_crps"],
        "rmse": np.sqrt(mean["squared_error"]),
        "spread": np.sqrt(mean["variance"]),
        "spread_skill": np.sqrt((num_members + 1) / num_members * mean["variance"] / mean["squared_error"]),
        "bias": mean["bias"],
    }
    for name in mean.data_vars:
        if name.endswith("_absolute_error"):
            baseline = name.removesuffix("_absolute_error")
            scores[f"{baseline}_mae"] = mean[name]
            scores[f"{baseline}_rmse"] = np.sqrt(mean[f"{baseline}_squared_error"])
    attrs = {"num_members": num_members, "num_starts": means.sizes["start"]}
    return xr.Dataset(scores, attrs=attrs)


def verify(
    forecast: xr.Dataset, truth: xr.Dataset, weights: ArrayLike, baselines: Mapping[str, xr.Dataset]
) -> xr.Dataset:
    """Scores of an ensemble forecast and its baselines; arguments of `case_means`, answer of `summarise`."""
    return summarise(case_means(forecast, truth, weights, baselines))


def rank_histogram(forecast: xr.Dataset, truth: xr.Dataset, weights: ArrayLike) -> xr.DataArray:
    """Relative frequency of the rank of the truth among the members (Hamill 2001).

    Ties are shared evenly among their ranks. Flat, at 1/(M + 1), if truth and members are exchangeable.

    Args:
        forecast: (start, lead_time, ensemble, cell) or (time, ensemble, cell).
        truth: the forecast's variables with dimensions (start, lead_time, cell), see `fields_like`.
        weights: (cell,) area weights, of any sum.

    Returns:
        (variable, lead_time, rank), rank 1…M + 1, with sum 1 over the ranks.

    Raises:
        ValueError: if the weights do not fit the cells.
        KeyError: if `truth` lacks a variable of the forecast.
    """
    forecast, weights = by_lead_time(forecast), _cell_weights(forecast, weights)
    _check_variables(forecast, {"truth": truth})
    truth = by_lead_time(truth)

    names = [str(name) for name in forecast.data_vars]
    ranks = [
        count_ranks(
            *_aligned(forecast[name], truth[name]), "ensemble", preserve_dims=["lead_time"], weights=weights
        )
        for name in names
    ]
    return xr.concat(ranks, xr.Variable("variable", names)).transpose("variable", "lead_time", "rank")


def _variable_means(
    forecast: xr.DataArray, truth: xr.DataArray, baselines: Mapping[str, xr.DataArray], weights: xr.DataArray
) -> xr.Dataset:
    """Case means of one variable."""
    forecast, truth = _aligned(forecast, truth)
    ensemble_mean = forecast.mean("ensemble")
    over_cells = {"reduce_dims": ["cell"], "weights": weights}
    variance = forecast.var("ensemble", ddof=1).where(truth.notnull())
    means = {
        "fair_crps": crps_for_ensemble(forecast, truth, "ensemble", method="fair", **over_cells),
        "squared_error": mse(ensemble_mean, truth, **over_cells),
        "variance": variance.weighted(weights).mean("cell"),
        "bias": additive_bias(ensemble_mean, truth, **over_cells),
    }
    for name, baseline in baselines.items():
        baseline, _ = _aligned(baseline, truth)
        means[f"{name}_absolute_error"] = mae(baseline, truth, **over_cells)
        means[f"{name}_squared_error"] = mse(baseline, truth, **over_cells)
    return xr.Dataset(means)


def _aligned(forecast: xr.DataArray, truth: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Both in memory in float64 (float32 sums of large values lose the score), if their cases agree."""
    xr.align(forecast, truth, join="exact")
    starts = "forecast_reference_time"
    if not np.array_equal(forecast[starts].values, truth[starts].values):
        raise ValueError(
            f"forecast and truth are of different starts: {forecast[starts].values} {truth[starts].values}"
        )
    return forecast.astype(np.float64).compute(), truth.astype(np.float64).compute()


def _cell_weights(forecast: xr.Dataset, weights: ArrayLike) -> xr.DataArray:
    weights = np.asarray(weights, np.float64)
    if weights.shape != (forecast.sizes["cell"],):
        raise ValueError(
            f"weights must be of shape ({forecast.sizes['cell']},), one a cell, not {weights.shape}"
        )
    return xr.DataArray(weights, dims="cell")


def _check_variables(forecast: xr.Dataset, others: Mapping[str, xr.Dataset]) -> None:
    for name, other in others.items():
        if missing := sorted(set(forecast.data_vars) - set(other.data_vars)):
            raise KeyError(
                f"{name} lacks the forecast's variables {missing}; it has {sorted(other.data_vars)}"
            )
