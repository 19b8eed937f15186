"""Scores as tables for the terminal, the notebook and Markdown."""

from __future__ import annotations

from collections.abc import Sequence

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
_SMALLEST_SCALE = 20  # wavenumbers beyond are at the edge of what a coarse grid carries


def score_table(scores: xr.Dataset, title: str = "", leads: Sequence[np.timedelta64] | None = None) -> Table:
    """A table with a row for each variable and lead time, the forecast's CRPS beside that of its baselines.

    The CRPS of a single forecast is its mean absolute error. A CRPS below that of every baseline is green,
    others red. ± is half the 95 % confidence interval.

    Args:
        scores: from `score`.
        title: line above the table.
        leads: lead times to show; all by default.

    Returns:
        A `rich` table: print it with `rich.print`, or show it as a cell's last line in a notebook.
    """
    columns = _columns(scores)
    baselines = names_of_baselines(scores)
    short = {name: _SHORT.get(name, name[:7]) for name in baselines}
    caption = f"{ensemble_size(scores)}, area-weighted"
    caption += "".join(f"; {short[name]}: {name.replace('_', ' ')}" for name in baselines)
    for key, meaning in _MEANINGS.items():
        caption += f"; {meaning}" if key in columns else ""
    table = Table(
        title=title or None, caption=caption, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )
    table.add_column("", no_wrap=True)
    for heading in ["lead", "fair CRPS", *short.values(), *columns]:
        table.add_column(heading, justify="right", no_wrap=True)
    for variable in scores["variable"].values:
        rows = _rows(scores, variable, leads, columns)
        units = f"[{pretty_units(scores['units'].sel(variable=variable).item())}]"
        names = [str(variable), units] if len(rows) > 1 else [f"{variable}\n{units}"]
        names += [""] * (len(rows) - len(names))
        for (lead, crps, others, rest), name in zip(rows, names, strict=True):
            at = scores.sel(variable=variable, lead_time=lead)
            best = min((crps_of(at, name) for name in baselines), default=np.inf)
            style = ("green" if at["fair_crps"].item() < best else "red") if baselines else ""
            table.add_row(Text(name), format_lead_time(lead), Text(crps, style=style), *others, *rest)
        table.add_section()
    return table


def markdown_table(scores: xr.Dataset, leads: Sequence[np.timedelta64] | None = None) -> str:
    """The table of `score_table` in Markdown.

    Args:
        scores: from `score`.
        leads: lead times to show; all by default.
    """
    columns = _columns(scores)
    baselines = [name.replace("_", " ") for name in names_of_baselines(scores)]
    heading = ["variable", "lead", "fair CRPS", *baselines, *columns.values()]
    lines = [heading, ["---"] * len(heading)]
    for variable in scores["variable"].values:
        for lead, crps, others, rest in _rows(scores, variable, leads, columns):
            lines.append([_label(scores, variable), format_lead_time(lead), crps, *others, *rest])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def ensemble_size(scores: xr.Dataset) -> str:
    """How much was scored: "26 starts, 16 members"."""
    starts, members = scores.attrs["num_starts"], scores.attrs["num_members"]
    return f"{starts} {'start' if starts == 1 else 'starts'}, {members} members"


def crps_of(scores: xr.Dataset, baseline: str) -> float:
    """CRPS of a baseline at one variable and lead time: the mean absolute error of a single forecast."""
    name = f"{baseline}_mae" if f"{baseline}_mae" in scores else f"{baseline}_fair_crps"
    return scores[name].item()


def shown_leads(scores: xr.Dataset) -> list[np.timedelta64]:
    """The lead times for a short table: one day and five if both are there, else the first and the last."""
    leads, wanted = scores["lead_time"].values, np.array([1, 5], "timedelta64[D]")
    chosen = leads[np.isin(leads, wanted)]
    return list(dict.fromkeys(chosen if len(chosen) == 2 else leads[[0, -1]]))


def format_lead_time(lead: np.timedelta64) -> str:
    """A lead time as people write it: "6 h", "36 h", "10 d"."""
    hours = lead / np.timedelta64(1, "h")
    return f"{hours / 24:g} d" if hours >= 48 and hours % 24 == 0 else f"{hours:g} h"


_COLUMNS = {"spread_skill": "spread/skill", "rank_p": "rank p", "power_ratio": "spectra"}
_MEANINGS = {
    "sp/sk": "sp/sk: spread-skill ratio",
    "rank p": "rank p: of a flat rank histogram",
    "spectra": f"spectra: least and most power of members over truth, wavenumbers 1–{_SMALLEST_SCALE}",
}


def _columns(scores: xr.Dataset) -> dict[str, str]:
    """Further columns by their short heading, as far as the scores have them."""
    there = {name: heading for name, heading in _COLUMNS.items() if name in scores}
    return {heading.replace("spread/skill", "sp/sk"): heading for heading in there.values()}


def _rows(
    scores: xr.Dataset, variable: str, leads: Sequence[np.timedelta64] | None, columns: dict[str, str]
) -> list[tuple[np.timedelta64, str, list[str], list[str]]]:
    rows = []
    for lead in scores["lead_time"].values if leads is None else leads:
        at = scores.sel(variable=variable, lead_time=lead)
        crps = three_digits(at["fair_crps"].item())
        if "fair_crps_interval" in at and np.isfinite(at["fair_crps_interval"]).all():
            crps += f" ±{_rounded(float(at['fair_crps_interval'].diff('bound').item()) / 2)}"
        others = [three_digits(crps_of(at, name)) for name in names_of_baselines(scores)]
        rows.append((lead, crps, others, [_further(at, heading) for heading in columns]))
    return rows


def _further(at: xr.Dataset, heading: str) -> str:
    if heading == "sp/sk":
        return f"{at['spread_skill'].item():.2f}"
    if heading == "rank p":
        return f"{at['rank_p'].item():.3f}"
    ratio = at["power_ratio"].sel(wavenumber=slice(1, _SMALLEST_SCALE))
    return f"{ratio.min().item():.2f}–{ratio.max().item():.2f}"


def _label(scores: xr.Dataset, variable: str) -> str:
    return f"{variable} [{pretty_units(scores['units'].sel(variable=variable).item())}]"


def three_digits(value: float) -> str:
    """A number to three digits: "0.457", "2.00", "12.3", "1234"."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:#.3g}".rstrip(".")


def _rounded(value: float) -> str:
    if abs(value) >= 10:
        return f"{value:.0f}"
    return np.format_float_positional(
        value, precision=1 if abs(value) < 1 else 2, unique=False, fractional=False, trim="-"
    )
