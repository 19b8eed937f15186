"""Area means for each start, lead time and variable, from which scores of labelled forecasts follow.

Forecasts are datasets of dimensions (time, ensemble, cell) with a lead time for each time, or (start,
lead_time, ensemble, cell). `summary` averages the means over starts and converts them to scores. They come
from the `scores` library (doi:10.21105/joss.06889) where it has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist, pdist
from scores.continuous import additive_bias, mae, mse
from scores.probability import crps_for_ensemble

from diffusion_lab.verification.events import Event, event_table
from diffusion_lab.verification.layout import by_lead_time
from diffusion_lab.verification.ranks import rank_table
from diffusion_lab.verification.spectra import PowerSpectrum

Float64 = NDArray[np.float64]

_CASE = ("start", "lead_time")


def case_means(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    weights: ArrayLike,
    baselines: Mapping[str, xr.Dataset],
    *,
    climatology: xr.Dataset | None = None,
    events: Mapping[str, Event] | None = None,
    spectrum: PowerSpectrum | None = None,
) -> xr.Dataset:
    """Area-weighted means for each case, to be averaged over starts by `summarise`.

    One variable is read at a time, so a lazily opened forecast need not fit in memory.

    Args:
        forecast: (start, lead_time, ensemble, cell) or (time, ensemble, cell), of two members or more.
        truth: the forecast's variables with dimensions (start, lead_time, cell), see `fields_like`. Cells
            where it or a member is NaN are left out.
        weights: (cell,) area weights, of any sum.
        baselines: forecasts by name, with the dimensions of `truth` and perhaps `ensemble`.
        climatology: for the anomaly correlation, with the dimensions of `truth`.
        events: by name.
        spectrum: for spectra on these cells.

    Returns:
        (start, variable, lead_time): `fair_crps`, `energy_score`, `squared_error` and `bias` of the ensemble
        mean, `variance` (ddof = 1), `anomaly_correlation` of the mean; for each baseline
        `<name>_squared_error`, and `<name>_absolute_error` or, of an ensemble, `<name>_fair_crps`.
        Also `rank_table` (…, candidate, rank), see `ranks`; `event_share` and `event_happened` (…, event,
        count), see `events`; `power` of the members, `mean_power` and `truth_power` (…, wavenumber); the
        coordinate `units` (variable) and the attribute `num_members`.

    Raises:
        ValueError: if there are fewer than two members, or the weights do not fit the cells.
        KeyError: if `truth` or a baseline lacks a variable of the forecast.
    """
    forecast, weights = by_lead_time(forecast), _cell_weights(forecast, weights)
    events = events or {}
    others = {"truth": truth, **baselines}
    if climatology is not None:
        others["the climatology"] = climatology
    _check_variables(forecast, others | {name: event.threshold for name, event in events.items()})
    others = {name: by_lead_time(other) for name, other in others.items()}

    names = [str(name) for name in forecast.data_vars]
    variables = []
    # numbagg, where it is installed, compiles for seconds to save milliseconds.
    with xr.set_options(use_numbagg=False):
        for name in names:
            fields = {other: by_name[name] for other, by_name in others.items()}
            ensemble, observed = _aligned(forecast[name], fields.pop("truth"))
            observed = observed.where(ensemble.notnull().all("ensemble"))  # the scores skip NaN
            normal = fields.pop("the climatology", None)
            means = _error_means(ensemble, observed, weights)
            for baseline, field in fields.items():
                means |= _baseline_means(baseline, _aligned(field, observed)[0], observed, weights)
            if normal is not None:
                means["anomaly_correlation"] = _anomaly_correlation(ensemble, observed, normal, weights)
            means["energy_score"] = energy_score(ensemble, observed, weights)
            means["rank_table"] = _ranks(ensemble, observed, weights)
            if events:
                thresholds = [(by_lead_time(e.threshold)[name], e.above) for e in events.values()]
                means |= _event_means(ensemble, observed, list(events), thresholds, weights)
            if spectrum is not None:
                means |= _power_means(ensemble, observed, spectrum)
            variables.append(xr.Dataset(means))
    units = [forecast[name].attrs.get("units", "1") for name in names]
    together = xr.concat(variables, xr.Variable("variable", names)).assign_coords(units=("variable", units))
    together = together.transpose("start", "variable", "lead_time", ...)
    return together.assign_attrs(num_members=forecast.sizes["ensemble"])


def energy_score(forecast: xr.DataArray, truth: xr.DataArray, weights: xr.DataArray) -> xr.DataArray:
    """Fair energy score of whole fields, E|X − y| − E|X − X'|/2 (Gneiting & Raftery 2007, eq. 22).

    |·| is the root of the area mean of the square, so the score has the units of the field, and for one cell
    is the fair CRPS.

    Args:
        forecast: (start, lead_time, ensemble, cell).
        truth: (start, lead_time, cell); cells where it is NaN are left out.
        weights: (cell,).

    Returns:
        (start, lead_time).
    """
    fields = forecast.transpose(*_CASE, "ensemble", "cell").values
    observed = truth.transpose(*_CASE, "cell").values
    scores = np.full(observed.shape[:2], np.nan)
    for case in np.ndindex(scores.shape):
        known = np.isfinite(observed[case])
        if known.any():
            scale = np.sqrt(weights.values[known] / weights.values[known].sum())
            members = fields[case][:, known] * scale
            to_truth = cdist(members, (observed[case][known] * scale)[None])
            scores[case] = to_truth.mean() - pdist(members).mean() / 2
    return xr.DataArray(scores, dims=_CASE)


def _error_means(
    forecast: xr.DataArray, truth: xr.DataArray, weights: xr.DataArray
) -> dict[str, xr.DataArray]:
    over_cells = {"reduce_dims": ["cell"], "weights": weights}
    mean = forecast.mean("ensemble")
    variance = forecast.var("ensemble", ddof=1).where(truth.notnull())
    return {
        "fair_crps": crps_for_ensemble(forecast, truth, "ensemble", method="fair", **over_cells),
        "squared_error": mse(mean, truth, **over_cells),
        "variance": variance.weighted(weights).mean("cell"),
        "bias": additive_bias(mean, truth, **over_cells),
    }


def _baseline_means(
    name: str, baseline: xr.DataArray, truth: xr.DataArray, weights: xr.DataArray
) -> dict[str, xr.DataArray]:
    over_cells = {"reduce_dims": ["cell"], "weights": weights}
    if "ensemble" not in baseline.dims:
        return {
            f"{name}_absolute_error": mae(baseline, truth, **over_cells),
            f"{name}_squared_error": mse(baseline, truth, **over_cells),
        }
    return {
        f"{name}_fair_crps": crps_for_ensemble(baseline, truth, "ensemble", method="fair", **over_cells),
        f"{name}_squared_error": mse(baseline.mean("ensemble"), truth, **over_cells),
    }


def _anomaly_correlation(
    forecast: xr.DataArray, truth: xr.DataArray, climatology: xr.DataArray, weights: xr.DataArray
) -> xr.DataArray:
    """Of the ensemble mean, centred over the area (WMO-No. 485, appendix 2.2.36)."""
    climatology, _ = _aligned(climatology, truth)
    return xr.corr(forecast.mean("ensemble") - climatology, truth - climatology, "cell", weights=weights)


def _ranks(forecast: xr.DataArray, truth: xr.DataArray, weights: xr.DataArray) -> xr.DataArray:
    table = rank_table(_values(forecast), _values(truth), weights.values)
    ranks = np.arange(1, table.shape[-1] + 1)
    return xr.DataArray(table, dims=(*_CASE, "candidate", "rank"), coords={"rank": ranks})


def _event_means(
    forecast: xr.DataArray,
    truth: xr.DataArray,
    names: Sequence[str],
    thresholds: Sequence[tuple[xr.DataArray, bool]],
    weights: xr.DataArray,
) -> dict[str, xr.DataArray]:
    tables = []
    for threshold, above in thresholds:
        sign = 1 if above else -1  # below a threshold is above it with all signs reversed
        limit = _values(_aligned(threshold, truth)[0])
        signed = (sign * _values(forecast), sign * _values(truth), sign * limit)
        tables.append(event_table(*signed, weights.values))
    table = np.stack(tables, axis=2)  # start, lead_time, event, 2, count
    dims, coords = (*_CASE, "event", "count"), {"event": names}
    return {
        "event_share": xr.DataArray(table[..., 0, :], coords, dims),
        "event_happened": xr.DataArray(table[..., 1, :], coords, dims),
    }


def _power_means(
    forecast: xr.DataArray, truth: xr.DataArray, spectrum: PowerSpectrum
) -> dict[str, xr.DataArray]:
    members = spectrum(torch.from_numpy(_values(forecast))).mean(-2)
    fields = {"mean_power": forecast.mean("ensemble"), "truth_power": truth}
    power = {"power": members} | {k: spectrum(torch.from_numpy(_values(f))) for k, f in fields.items()}
    known = power["truth_power"].isfinite()  # otherwise averages would be over different starts
    dims, coords = (*_CASE, "wavenumber"), {"wavenumber": spectrum.wavenumbers}
    return {k: xr.DataArray(p.where(known, torch.nan).numpy(), coords, dims) for k, p in power.items()}


def _values(field: xr.DataArray) -> Float64:
    return field.transpose(*_CASE, ..., "cell").values


def _aligned(forecast: xr.DataArray, truth: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Both in memory and in float64 (float32 sums of large values lose the score), if their cases agree."""
    xr.align(forecast, truth, join="exact")
    starts = "forecast_reference_time"
    if not np.array_equal(forecast[starts].values, truth[starts].values):
        both = f"{forecast[starts].values} {truth[starts].values}"
        raise ValueError(f"forecast and truth are of different starts: {both}")
    return forecast.astype(np.float64).compute(), truth.astype(np.float64).compute()


def _cell_weights(forecast: xr.Dataset, weights: ArrayLike) -> xr.DataArray:
    weights = np.asarray(weights, np.float64)
    shape = (forecast.sizes["cell"],)
    if weights.shape != shape:
        raise ValueError(f"weights must be of shape {shape}, one for each cell, not {weights.shape}")
    return xr.DataArray(weights, dims="cell")


def _check_variables(forecast: xr.Dataset, others: Mapping[str, xr.Dataset]) -> None:
    for name, other in others.items():
        if missing := sorted(map(str, set(forecast.data_vars) - set(other.data_vars))):
            known = sorted(map(str, other.data_vars))
            raise KeyError(f"{name} lacks the forecast's variables {missing}; it has {known}")
