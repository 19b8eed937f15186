"""The scoreboard, as HTML, and the words of the status."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from typing import Any

from diffusion_lab.stores.units import pretty_units
from diffusion_lab.widgets.tuner.charts import colour
from diffusion_lab.widgets.tuner.result import Result
from diffusion_lab.widgets.tuner.session import Frame
from diffusion_lab.widgets.tuner.setting import Setting, flat

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory")  # torch's words on a GPU, and on the CPU
_COLUMNS = {"fair_crps": "fair CRPS", "rmse": "RMSE of mean", "spread_skill": "spread / skill"}


def scoreboard(
    results: Mapping[str, Result],
    reference: str,
    variable: str,
    lead: int,
    defaults: Mapping[str, Any],
    units: str,
) -> str:
    """A row for each result, with its change against the reference.

    Args:
        results: the present one first, then those pinned, by name; if there are none, a row of dashes.
        reference: name of the one to compare with.
        variable: which is scored.
        lead: number of the forecast step that is scored.
        defaults: of the checkpoint; only what differs is told.
        units: of the variable.
    """
    units = pretty_units(units).replace(" ", "&nbsp;")
    heads = [f"{_COLUMNS['fair_crps']} [{units}]", f"{_COLUMNS['rmse']} [{units}]", _COLUMNS["spread_skill"]]
    titles = ["setting", "members", *heads, "calls", "seconds", "differs from the checkpoint's defaults by"]
    head = "".join(f"<th{' class=dl-what' if i == 7 else ''}>{title}</th>" for i, title in enumerate(titles))
    base = results.get(reference)
    rows = [
        _row(number, name, result, base if base is not result else None, variable, lead, defaults)
        for number, (name, result) in enumerate(results.items())
    ]
    body = "".join(rows) or f"<tr><td>now</td>{'<td>–</td>' * 6}<td class='dl-what'>sampling …</td></tr>"
    return f"<table class='dl-board'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _row(
    number: int,
    name: str,
    result: Result,
    base: Result | None,
    variable: str,
    lead: int,
    defaults: Mapping[str, Any],
) -> str:
    lead = min(lead, result.setting.steps)
    scores = result.scores(variable, lead)
    before = base.scores(variable, min(lead, base.setting.steps)) if base else {}
    cells = [_score(key, scores[key], before.get(key)) for key in _COLUMNS]
    label = f"<span style='color:{colour(number)}'>●</span> {html.escape(name)}"
    ready = len(result.members)
    members = str(ready) if result.finished else f"{ready} of {result.setting.members}"
    cost = [f"{result.calls}", f"{result.seconds:.1f}"]
    cells = [label, members, *cells, *cost]
    what = html.escape(describe(result.setting, defaults))
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + f"<td class='dl-what'>{what}</td></tr>"


def _score(key: str, value: float, before: float | None) -> str:
    if not math.isfinite(value):
        return "–"
    shown = f"{value:.4g}"
    if before is None or not math.isfinite(before) or before == 0:
        return shown
    # Lower is better, but a spread-skill ratio should be 1.
    better = abs(value - 1) < abs(before - 1) if key == "spread_skill" else value < before
    change = f"{value - before:+.2f}" if key == "spread_skill" else f"{100 * (value / before - 1):+.1f} %"
    sign = "" if value == before else "dl-good" if better else "dl-bad"
    return f"{shown} <span class='{sign}'>{change.replace('-', '−')}</span>"


def describe(setting: Setting, defaults: Mapping[str, Any]) -> str:
    """The options of a setting's sampling that the checkpoint's defaults do not have."""
    given = flat(setting.predict_kwargs)
    other = {name: value for name, value in given.items() if value != defaults.get(name)}
    words = (
        f"{name} {value:.7g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in other.items()
    )
    return ", ".join(words) or "nothing"


def progress(frame: Frame) -> str:
    """Where a run is and how long it will still take."""
    left = frame.seconds * (1 / max(frame.share, 1e-3) - 1)
    lead = f"lead {frame.lead} of {frame.setting.steps} · " if frame.setting.steps > 1 else ""
    return (
        f"{lead}step {frame.step} of {frame.num_steps} · σ = {frame.sigma:.3g} · "
        f"{frame.calls} calls · {left:.1f} s left"
    )


def fault(error: Exception) -> str:
    """An error in one line, with what may help."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    text = text or type(error).__name__
    if isinstance(error, MemoryError) or any(sign in text.lower() for sign in _OUT_OF_MEMORY):
        text = f"out of memory: choose fewer members, or members_per_call=1 ({text.splitlines()[0][:120]})"
    return text
