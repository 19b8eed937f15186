"""Tables of scores for the terminal, the notebook and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from diffusion_lab.stores.units import pretty_units
from diffusion_lab.verification.summary import names_of_baselines

_SHORT = {
    "persistence": "pers.",
    "climatology": "clim.",
    "climatological_ensemble": "c.ens",
    "deterministic": "det.",
}
_SMALLEST_SCALE = 20  # a coarse grid hardly resolves higher wavenumbers
# Further scores: short and long heading, and meaning.
_COLUMNS = {
    "spread_skill": ("sp/sk", "spread/skill", "spread-skill ratio"),
    "rank_p": ("rank p", "rank p", "of a flat rank histogram"),
    "power_ratio": (
        *("spectra", "spectra"),
        f"least and most power of members over truth, wavenumbers 1–{_SMALLEST_SCALE}",
    ),
}


def score_table(scores: xr.Dataset, title: str = "", leads: Sequence[np.timedelta64] | None = None) -> Table:
    """A `rich` table with a row for each variable and lead time, and the CRPS of forecast and baselines.

    The CRPS of a deterministic forecast is its mean absolute error. A CRPS below that of every baseline is
    green, others red. ± is half the 95 % confidence interval.

    Args:
        scores: from `score`.
        title: line above the table.
        leads: lead times to show; all by default.
    """
    columns = [column for name, column in _COLUMNS.items() if name in scores]
    baselines = names_of_baselines(scores)
    short = {name: _SHORT.get(name, name[:7]) for name in baselines}
    caption = f"{ensemble_size(scores)}, area-weighted"
    caption += "".join(f"; {short[name]}: {name.replace('_', ' ')}" for name in baselines)
    caption += "".join(f"; {heading}: {meaning}" for heading, _, meaning in columns)
    layout: dict[str, Any] = {"box": SIMPLE_HEAD, "pad_edge": False, "collapse_padding": True}
    table = Table(title=title or None, caption=caption, **layout)
    table.add_column("", no_wrap=True)
    for heading in ["lead", "fair CRPS", *short.values(), *(heading for heading, _, _ in columns)]:
        table.add_column(heading, justify="right", no_wrap=True)
    for variable in scores["variable"].values:
        rows = _rows(scores, variable, leads)
        units = f"[{pretty_units(scores['units'].sel(variable=variable).item())}]"
        names = [str(variable), units] if len(rows) > 1 else [f"{variable}\n{units}"]
        names += [""] * (len(rows) - len(names))
        for (lead, crps, *rest), name in zip(rows, names, strict=True):
            at = scores.sel(variable=variable, lead_time=lead)
            best = min((crps_of(at, name) for name in baselines), default=np.inf)
            style = ("green" if at["fair_crps"].item() < best else "red") if baselines else ""
            table.add_row(Text(name), format_lead_time(lead), Text(crps, style=style), *rest)
        table.add_section()
    return table


def markdown_table(scores: xr.Dataset, leads: Sequence[np.timedelta64] | None = None) -> str:
    """The table of `score_table` in Markdown; arguments as there."""
    columns = [heading for name, (_, heading, _) in _COLUMNS.items() if name in scores]
    baselines = [name.replace("_", " ") for name in names_of_baselines(scores)]
    heading = ["variable", "lead", "fair CRPS", *baselines, *columns]
    lines = [heading, ["---"] * len(heading)]
    for variable in scores["variable"].values:
        label = f"{variable} [{pretty_units(scores['units'].sel(variable=variable).item())}]"
        for lead, *cells in _rows(scores, variable, leads):
            lines.append([label, format_lead_time(lead), *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def ensemble_size(scores: xr.Dataset) -> str:
    """The number of starts and members: "26 starts, 16 members"."""
    starts, members = scores.attrs["num_starts"], scores.attrs["num_members"]
    return f"{starts} {'start' if starts == 1 else 'starts'}, {members} members"


def crps_of(scores: xr.Dataset, baseline: str) -> float:
    """CRPS of a baseline at one variable and lead time; if deterministic, its mean absolute error."""
    name = f"{baseline}_mae" if f"{baseline}_mae" in scores else f"{baseline}_fair_crps"
    return scores[name].item()


def shown_leads(scores: xr.Dataset) -> list[np.timedelta64]:
    """The lead times for a short table: days 1 and 5 if both exist, else the first and the last."""
    leads, wanted = scores["lead_time"].values, np.array([1, 5], "timedelta64[D]")
    chosen = leads[np.isin(leads, wanted)]
    return list(dict.fromkeys(chosen if len(chosen) == 2 else leads[[0, -1]]))


def format_lead_time(lead: np.timedelta64) -> str:
    """A lead time such as "6 h", "36 h" or "10 d"."""
    hours = lead / np.timedelta64(1, "h")
    return f"{hours / 24:g} d" if hours >= 48 and hours % 24 == 0 else f"{hours:g} h"


def _rows(scores: xr.Dataset, variable: str, leads: Sequence[np.timedelta64] | None) -> list[tuple[Any, ...]]:
    """For each lead time: it, and the cells from the CRPS on."""
    rows = []
    for lead in scores["lead_time"].values if leads is None else leads:
        at = scores.sel(variable=variable, lead_time=lead)
        crps = three_digits(at["fair_crps"].item())
        if "fair_crps_interval" in at and np.isfinite(at["fair_crps_interval"]).all():
            crps += f" ±{_rounded(float(at['fair_crps_interval'].diff('bound').item()) / 2)}"
        others = [three_digits(crps_of(at, name)) for name in names_of_baselines(scores)]
        rows.append((lead, crps, *others, *(_further(at, name) for name in _COLUMNS if name in at)))
    return rows


def _further(at: xr.Dataset, name: str) -> str:
    if name == "power_ratio":
        ratio = at[name].sel(wavenumber=slice(1, _SMALLEST_SCALE))
        return f"{ratio.min().item():.2f}–{ratio.max().item():.2f}"
    return f"{at[name].item():.{3 if name == 'rank_p' else 2}f}"


def three_digits(value: float) -> str:
    """A number to three digits: "0.457", "2.00", "12.3", "1234"."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:#.3g}".rstrip(".")


def _rounded(value: float) -> str:
    if abs(value) >= 10:
        return f"{value:.0f}"
    digits = 1 if abs(value) < 1 else 2
    return np.format_float_positional(value, digits, unique=False, fractional=False, trim="-")
