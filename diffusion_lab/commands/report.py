"""The report of a verification: one HTML file with all tables and pictures inside; the scores as NetCDF."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import jinja2
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from diffusion_lab import plots
from diffusion_lab.plots.style import degrees
from diffusion_lab.stores.dates import show_date
from diffusion_lab.stores.store import Store
from diffusion_lab.stores.units import pretty_units
from diffusion_lab.verification.baselines import truth_of
from diffusion_lab.verification.layout import by_lead_time
from diffusion_lab.verification.summary import names_of_baselines
from diffusion_lab.verification.tables import (
    crps_of,
    ensemble_size,
    format_lead_time,
    shown_leads,
    three_digits,
)

Picture = tuple[str, Figure]
"""What it shows, for those who cannot see it, and the figure."""

_TEMPLATE = Path(__file__).with_name("report.html.jinja")


def save_report(
    folder: str | Path,
    forecast: xr.Dataset,
    scores: xr.Dataset,
    store: Store,
    *,
    title: str = "Verification",
    facts: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write the scores and the report.

    Args:
        folder: where to; made if it is not there.
        forecast: what was scored; maps and plumes show its first start.
        scores: from `score`.
        store: with the truth.
        title: heading of the report.
        facts: what was verified and how, shown below the heading.

    Returns:
        The files: scores.nc and report.html, which opens without a server.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "scores.nc", folder / "report.html"]
    scores.to_netcdf(files[0], engine="h5netcdf")
    forecast = by_lead_time(forecast)
    dates = forecast["forecast_reference_time"].values
    forecast = forecast.isel(start=[0])
    truth = truth_of(forecast, store)
    land = store.read(0, ["lsm"])[0, 0, 0] if "lsm" in store.variables else None
    names = [str(name) for name in forecast.data_vars]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    html = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        title=_without_folders(title),
        facts={
            **{name: _without_folders(fact) for name, fact in (facts or {}).items()},
            "Starts": " to ".join(dict.fromkeys(map(show_date, dates[[0, -1]]))),
            "Forecasts": ensemble_size(scores),
        },
        baselines=[name.replace("_", " ") for name in names_of_baselines(scores)],
        intervals=bool(np.isfinite(scores["fair_crps_interval"]).any()),
        events="brier_skill" in scores,
        table=[(name, _units(scores, name), list(_rows(scores, name))) for name in scores["variable"].values],
        overview=[_embed(*picture) for picture in _overview(scores)],
        variables=[
            (name, [_embed(*picture) for picture in _of_variable(name, forecast, truth, scores, store, land)])
            for name in names
        ],
    )
    files[1].write_text(html, encoding="utf-8")
    return files


def _rows(scores: xr.Dataset, variable: str) -> Iterator[dict[str, object]]:
    """What the table shows of a variable, for each lead time."""
    for lead in scores["lead_time"].values:
        at = scores.sel(variable=variable, lead_time=lead)
        interval = at["fair_crps_interval"].values
        crps = {name: crps_of(at, name) for name in names_of_baselines(scores)}
        others = [three_digits(at[name].item()) for name in ("rmse", "spread", "bias")]
        yield {
            "lead": format_lead_time(lead),
            "crps": three_digits(at["fair_crps"].item()),
            "interval": "–".join(map(three_digits, interval)) if np.isfinite(interval).all() else "",
            "better": at["fair_crps"].item() < min(crps.values()),
            "baselines": [three_digits(value) for value in crps.values()],
            "others": [number.replace("-", "−") for number in others],
            "spread_skill": f"{at['spread_skill'].item():.2f}",
            "correlation": f"{at['anomaly_correlation'].item():.3f}",
            "rank_p": f"{at['rank_p'].item():.3f}",
            "brier_skill": [f"{v:.2f}" for v in at["brier_skill"].values] if "brier_skill" in at else [],
        }


def _units(scores: xr.Dataset, variable: str) -> str:
    return pretty_units(scores["units"].sel(variable=variable).item())


def _overview(scores: xr.Dataset) -> Iterator[Picture]:
    """The pictures of all variables together."""
    height = 1.1 + 0.42 * scores.sizes["variable"]
    figure = Figure(figsize=(13, 2 * height), layout="constrained")
    axes = figure.subplots(2, 2)
    for ax in axes.flat[len(names_of_baselines(scores)) :]:
        ax.remove()
    for ax, baseline in zip(axes.flat, names_of_baselines(scores), strict=False):
        plots.scorecard(ax, scores, baseline)
    baselines = ", ".join(name.replace("_", " ") for name in names_of_baselines(scores))
    yield f"CRPS skill of all variables by lead time, against {baselines}", figure
    spectra = "power_ratio" in scores
    figure = Figure(figsize=(13 if spectra else 6.5, 3.8), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, 1 + spectra))
    plots.spread_skill(axes[0], scores)
    axes[0].set_title("spread-skill ratio", fontsize="medium")
    if spectra:
        last = scores["lead_time"].values[-1]
        plots.spectra_ratio(axes[1], scores, last)
        axes[1].set_title(f"spectra at {format_lead_time(last)}", fontsize="medium")
    yield f"spread-skill ratio of all variables by lead time{' and ratio of spectra' * spectra}", figure


def _of_variable(
    name: str,
    forecast: xr.Dataset,
    truth: xr.Dataset,
    scores: xr.Dataset,
    store: Store,
    land: np.ndarray | None,
) -> Iterator[Picture]:
    """The pictures of one variable."""
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    axes = figure.subplots(1, 3)
    plots.score_vs_lead(axes[0], scores, name)
    plots.score_vs_lead(axes[1], scores, name, "rmse")
    cell = plots.nearest_cell(forecast, *_a_place(store))
    plots.plume(axes[2], forecast[name].isel(start=0, cell=cell), truth[name].isel(start=0, cell=cell))
    for ax, title in zip(axes, ("fair CRPS", "RMSE and spread", _where(forecast, cell)), strict=True):
        ax.set_title(title, fontsize="medium")
    yield f"{name}: fair CRPS, RMSE and spread by lead time; {_where(forecast, cell)}", figure
    for lead in shown_leads(scores):
        at = f"{name} at {format_lead_time(lead)}"
        yield f"{at}: calibration of the ensemble", _calibration(name, scores, lead)
        panel = plots.forecast_panel(forecast, truth, name, lead_time=lead, land=land)
        yield f"{at}: maps of the truth and the ensemble", panel


def _calibration(name: str, scores: xr.Dataset, lead: np.timedelta64) -> Figure:
    """Ranks, spectra, reliability and ROC at one lead time."""
    at = scores.sel(variable=name, lead_time=lead)
    spectra, events = "power" in scores, "event_share" in scores
    figure = Figure(figsize=(3.3 * (1 + spectra + 2 * events), 3.5), layout="constrained")
    axes = iter(np.atleast_1d(figure.subplots(1, 1 + spectra + 2 * events)))
    plots.rank_histogram(next(axes), at["rank_histogram"].values, at["rank_histogram_interval"].values)
    if spectra:
        plots.spectra(next(axes), scores, name, lead)
    if events:
        for ax, draw in zip(axes, (plots.reliability, plots.roc), strict=True):
            for event in at["event"].values:
                draw(ax, at["event_share"].sel(event=event), at["event_happened"].sel(event=event), event)
    figure.suptitle(f"{name} at {format_lead_time(lead)}", fontsize="medium")
    return figure


def _embed(alt: str, figure: Figure) -> tuple[str, str]:
    """What the picture shows, and the address that holds it."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return alt, f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _without_folders(text: str) -> str:
    """Files of this machine by their names alone: the report is given to others."""
    return re.sub(r"(?<![\w/:.])(?:~|[A-Za-z]:)?[/\\](?:[^/\\,]+[/\\])*", "", text)


def _a_place(store: Store) -> tuple[float, float]:
    """Where the plume is drawn: 50° N, 0° E on the globe, else the middle of the region."""
    if np.ptp(store.latitudes) > 120:
        return 50.0, 0.0
    return float(np.mean(store.latitudes)), float(np.mean(store.longitudes))


def _where(forecast: xr.Dataset, cell: int) -> str:
    north, east = (round(float(forecast[name][cell])) for name in ("latitude", "longitude"))
    place = f"{degrees(north, 'N', 'S')} {degrees((east + 180) % 360 - 180, 'E', 'W')}"
    return f"plume at {place} from {show_date(forecast['forecast_reference_time'].values[0])}"
