"""Scores as tables for the terminal and the notebook."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text


def score_table(scores: xr.Dataset, title: str = "") -> Table:
    """A table with a row for each variable and lead time, the forecast beside its baselines.

    CRPS stands beside the mean absolute error of the baselines (the CRPS of a forecast without spread), RMSE
    of the ensemble mean beside their RMSE. Scores that beat every baseline are green, others red.

    Args:
        scores: from `verify`.
        title: line above the table.

    Returns:
        A `rich` table: print it with `rich.print`, or show it as a cell's last line in a notebook.
    """
    baselines = [str(name).removesuffix("_mae") for name in scores.data_vars if str(name).endswith("_mae")]
    short = {name: f"{name[:4]}." for name in baselines}  # with two baselines the table fits 80 columns
    caption = f"{scores.attrs['num_starts']} starts, {scores.attrs['num_members']} members, area-weighted"
    caption += "".join(f"; {short[name]}: {name}" for name in baselines)
    table = Table(
        title=title or None, caption=caption, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )
    table.add_column("variable", no_wrap=True)
    headings = ["lead", "fair\nCRPS", *[f"{short[name]}\nMAE" for name in baselines]]
    headings += ["mean's\nRMSE", *[f"{short[name]}\nRMSE" for name in baselines], "spread\n/skill"]
    for heading in headings:
        table.add_column(heading, justify="right")

    for variable in scores["variable"].values:
        label = f"{variable} [{scores['units'].sel(variable=variable).item()}]"
        for row, lead in enumerate(scores["lead_time"].values):
            at = scores.sel(variable=variable, lead_time=lead)
            table.add_row(
                Text(label if row == 0 else ""),
                format_lead_time(lead),
                *_beside(at, "fair_crps", [f"{name}_mae" for name in baselines]),
                *_beside(at, "rmse", [f"{name}_rmse" for name in baselines]),
                f"{at['spread_skill'].item():.2f}",
            )
        table.add_section()
    return table


def format_lead_time(lead: np.timedelta64) -> str:
    """A lead time as people write it: "6 h", "36 h", "10 d"."""
    hours = lead / np.timedelta64(1, "h")
    return f"{hours / 24:g} d" if hours >= 48 and hours % 24 == 0 else f"{hours:g} h"


def _beside(scores: xr.Dataset, score: str, baselines: Sequence[str]) -> list[Text]:
    value, others = scores[score].item(), [scores[name].item() for name in baselines]
    style = ("green" if value < min(others) else "red") if others else ""
    return [Text(_three_digits(value), style=style), *[Text(_three_digits(other)) for other in others]]


def _three_digits(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:.0f}"
    return np.format_float_positional(value, precision=3, unique=False, fractional=False, trim="-")
