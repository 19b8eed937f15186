"""`diffusion-lab publish`: a run's checkpoint becomes a released one, with its scores and its model card."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from pydantic import Field

from diffusion_lab.assets import store_path
from diffusion_lab.commands.report import save_report
from diffusion_lab.commands.requests import PredictKwargs, Request, steps_of
from diffusion_lab.config import Lead
from diffusion_lab.inference.forecaster import Forecaster, load_forecaster
from diffusion_lab.inference.release import load_release, save_release
from diffusion_lab.stores.dates import spread_out
from diffusion_lab.stores.store import Store, open_store
from diffusion_lab.verification import (
    format_lead_time,
    markdown_table,
    run_protocol,
    shown_leads,
)
from diffusion_lab.verification.search.space import network_calls
from diffusion_lab.verification.summary import names_of_baselines

STORE, YEAR, STARTS, EVERY, MEMBERS = "example", "2025", 26, np.timedelta64(14, "D"), 16


class PublishRequest(Request):
    r"""Turn a run's checkpoint into a released one: scored on the test year, with a model card beside it.

    For maintainers of the released checkpoints.

      diffusion-lab tune checkpoint=runs/NAME/NAME.safetensors data=example output=runs/NAME/tuning
      diffusion-lab publish runs/NAME/tuning/predict_kwargs.yaml checkpoint=runs/NAME/NAME.safetensors \
          search_report=runs/NAME/tuning/report.txt

    The protocol is fixed, so that numbers can be compared: that of `diffusion-lab verify`, which is the test
    year 2025 of the example store, 26 starts 14 days apart, 16 members, with the sampling defaults that it is
    released with; with `unseen`, also the first year of another store, which nothing was chosen by. Forecasts
    are kept in the folder `verification` beside the checkpoint, where the report is written too; if it is
    stopped, the same command resumes where it was.
    """

    checkpoint: Path = Field(description="the release checkpoint of a run, a .safetensors file")
    lead_time: Lead = Field(np.timedelta64(5, "D"), description="of the longest forecasts")
    predict_kwargs: PredictKwargs = Field(
        PredictKwargs(), description="changes the sampling defaults that the checkpoint is released with"
    )
    search_report: Path | None = Field(
        None, description="report.txt of diffusion-lab tune, for the model card"
    )
    note: str = Field("", description="what else the model card is to say of the training")
    remarks: Path | None = Field(
        None, description="Markdown for the model card; the checkpoint keeps it from then on"
    )
    unseen: str | None = Field(None, description="another store, whose first year is scored too")
    output: Path = Field(
        Path(__file__).parents[1] / "assets", description="folder for NAME.safetensors and NAME.md"
    )


def run_publish(request: PublishRequest) -> None:
    """Publish the checkpoint and say where it is."""
    report = request.search_report.read_text() if request.search_report else ""
    print(publish(request, report.split("\npredict_kwargs:")[0]))


def publish(request: PublishRequest, search_report: str = "") -> Path:
    """Score a checkpoint by the protocol and write it, scores inside, with its model card.

    Args:
        request: which checkpoint, and what it is released with.
        search_report: what the sampler search found, for the model card.

    Returns:
        The published file.
    """
    forecaster = with_defaults(load_forecaster(request.checkpoint, request.device), request.overrides)
    store, work = open_store(store_path(STORE)), request.checkpoint.parent / "verification"
    lead_time, name = request.lead_time, request.checkpoint.stem
    scores, protocol = run_in_year(forecaster, store, YEAR, lead_time, work, name)
    leads = shown_leads(scores)
    tables = {protocol: markdown_table(scores, leads)}
    if request.unseen is not None:
        other = open_store(request.unseen)
        year = str(other.dates[0].astype("datetime64[Y]"))
        others, protocol = run_in_year(forecaster, other, year, lead_time, work / year, name)
        tables[protocol] = markdown_table(others, leads)
    added = {"note": request.note, "remarks": request.remarks.read_text() if request.remarks else ""}
    release = forecaster.release.model_copy(
        update={
            "store": STORE,
            "training": forecaster.release.training | {key: text for key, text in added.items() if text},
            "scores": {
                "protocol": next(iter(tables)),
                "lead_times": [format_lead_time(lead) for lead in leads],
                "by_variable": as_dict(scores.sel(lead_time=leads)),
            },
        }
    )
    path = request.output / request.checkpoint.name
    network = load_release(request.checkpoint)[1]  # on the CPU, whatever the device of the forecasts
    save_release(path, release, network, forecaster.latitudes, forecaster.longitudes)
    card = model_card(
        path.stem,
        release.model_dump(),
        path.stat().st_size,
        tables,
        measured_weaknesses(scores.sel(lead_time=leads)),
        search_report,
    )
    path.with_suffix(".md").write_text(card, encoding="utf-8")
    return path


def run_in_year(
    forecaster: Forecaster, store: Store, year: str, lead_time: np.timedelta64, folder: Path, name: str
) -> tuple[xr.Dataset, str]:
    """Run the protocol from starts of a year, and write its report.

    Args:
        forecaster: with the sampling defaults to be scored.
        store: holds the year.
        year: such as "2025".
        lead_time: of the longest forecasts.
        folder: keeps the forecasts and the report.
        name: of the checkpoint, for the report.

    Returns:
        The scores, and the protocol in a line.
    """
    past = (forecaster.model.multistep_input - 1) * forecaster.step
    starts = scored_starts(store, lead_time, year, past)
    steps = steps_of(forecaster, lead_time)
    forecast, scores = run_protocol(
        forecaster, starts, steps, MEMBERS, data=store, folder=folder / "forecasts"
    )
    save_report(folder, forecast, scores, store, title=f"{name}, {year}")
    return scores, (
        f"test year {year}, {len(starts)} starts every {EVERY.astype(int)} days, {MEMBERS} members, steps of "
        f"{forecaster.release.step}, {network_calls(forecaster.settings)} network calls a step"
    )


def scored_starts(
    store: Store, lead_time: np.timedelta64, year: str = YEAR, past: np.timedelta64 | int = 0
) -> np.ndarray:
    """The protocol's starts in a year, (start,): those with inputs since `past` and truth to `lead_time`."""
    dates = store.dates[np.char.startswith(store.dates.astype(str), year)]
    dates = dates[(dates - past >= store.dates[0]) & (dates + lead_time <= store.dates[-1])]
    return spread_out(dates, STARTS, EVERY)


def with_defaults(forecaster: Forecaster, predict_kwargs: dict[str, dict[str, Any]]) -> Forecaster:
    """The same model with other sampling defaults, key by key.

    Raises:
        ValueError: an unknown option.
    """
    settings = forecaster.settings.override(**predict_kwargs)
    release = forecaster.release.model_copy(update={"inference_defaults": settings.as_dict()})
    return Forecaster(release, forecaster.model, forecaster.latitudes, forecaster.longitudes)


def as_dict(scores: xr.Dataset) -> dict[str, dict[str, list]]:
    """Scores that are one number, and their intervals, by variable: lists over lead times, four digits."""

    def rounded(values: Any) -> Any:
        if isinstance(values, list):
            return [rounded(value) for value in values]
        if values == 0 or not math.isfinite(values):
            return values if values == 0 else None
        return round(values, 3 - math.floor(math.log10(abs(values))))

    single = [
        name
        for name, values in scores.data_vars.items()
        if set(values.dims) <= {"variable", "lead_time", "bound"}
    ]
    ordered = scores[single].transpose("variable", "lead_time", ...)
    return {
        str(name): {str(key): rounded(ordered[key].sel(variable=name).values.tolist()) for key in single}
        for name in scores["variable"].values
    }


def measured_weaknesses(scores: xr.Dataset) -> list[str]:
    """Where a forecast is worse than a baseline, over- or underconfident, too smooth or too rough."""
    found = []
    for variable, lead in product(scores["variable"].values, scores["lead_time"].values):
        at = scores.sel(variable=variable, lead_time=lead)
        where = f"{variable} at {format_lead_time(lead)}"
        for baseline in names_of_baselines(scores):
            if at[f"{baseline}_crpss"] < 0:
                found.append(f"{where}: CRPS above that of {baseline.replace('_', ' ')}.")
        if not 0.9 <= at["spread_skill"] <= 1.1:
            kind = "small" if at["spread_skill"] < 1 else "large"
            spread = at["spread_skill"].item()
            found.append(f"{where}: spread too {kind}, {spread:.2f} of what it should be.")
        ratio = at["power_ratio"].sel(wavenumber=slice(1, 20))
        wrong = ratio["wavenumber"].values[(ratio < 0.8) | (ratio > 1.2)]
        if len(wrong):
            found.append(
                f"{where}: power {ratio.min().item():.2f} to {ratio.max().item():.2f} of the truth's, over "
                f"20 % off at the wavenumbers {', '.join(map(str, wrong))}."
            )
    return found


def model_card(
    name: str,
    release: Mapping[str, Any],
    size: int,
    tables: Mapping[str, str],
    measured: Sequence[str],
    search_report: str,
) -> str:
    """The model card, Markdown.

    Args:
        name: of the checkpoint.
        release: its document.
        size: of its file, bytes.
        tables: of scores, by the protocol of each; the first is that of the test year.
        measured: the weaknesses found.
        search_report: of the sampler search; empty for none.
    """
    training = release["training"]
    passes = training["steps"] * training["batch_size"] / training["samples"]
    kind = "changes over a step" if "Tend" in release["model"] else "states"
    (protocol, table), *others = tables.items()
    return "\n".join(
        [
            f"# {name}",
            "",
            f"`{release['model']}`: an EDM diffusion model of {kind}, {release['step']} a step, on the "
            "example atmosphere (SPEEDY, 64×32 Gaussian grid).",
            "",
            *_facts(release, size),
            "",
            f"## Scores\n\nProtocol: {protocol}.",
            "",
            table,
            "",
            "The fair CRPS stands beside that of simple forecasts, which for a single forecast is its mean "
            "absolute error; ± is half the 95 % interval of a block bootstrap over the starts. "
            "Deterministic: one network call a step. Spread/skill is 1 for a calibrated ensemble; rank p is "
            "the p-value of a flat rank histogram; spectra: least and most power of members over truth for "
            "wavenumbers 1–20.",
            "",
            *_sections(
                {f"A year that nothing was chosen by: {other}": table for other, table in others}, "###"
            ),
            *_sections({"The sampler search": f"```\n{search_report}\n```"} if search_report else {}),
            *([training["remarks"].strip(), ""] if "remarks" in training else []),
            "## Known weaknesses",
            "",
            *[f"- {weakness}" for weakness in measured],
            "- One simulated climate without interannual forcing, coarse resolution, no humidity; "
            f"{passes:.1f} passes over the data. It is an example to learn from, not a weather forecast.",
            "",
        ]
    )


def _sections(texts: Mapping[str, str], level: str = "##") -> list[str]:
    """Lines of Markdown: a heading and a text each."""
    return [line for heading, text in texts.items() for line in (f"{level} {heading}", "", text, "")]


def _facts(release: Mapping[str, Any], size: int) -> list[str]:
    """What a checkpoint is and how it was made, an item of a list each."""
    training, arguments = release["training"], release["arguments"]
    prognostic, forcing = (
        ", ".join(v["name"] for v in release["variables"] if v["role"] == role)
        for role in ("prognostic", "forcing")
    )
    return [
        f"- **Network**: {arguments['processor']} processor, {arguments['num_channels']} channels, "
        f"{arguments['num_layers']} layers, {arguments['multistep_input']} past states; weights in half "
        f"precision, {size / 2**20:.1f} MiB.",
        f"- **Variables**: {prognostic}; forcings {forcing}.",
        f"- **Data**: {training['data']}, {training['window'][0]} to {training['window'][1]}, "
        f"{training['samples']:,} samples.",
        f"- **Training**: {_training(training)}",
        f"- **Sampling defaults**: {release['inference_defaults']}",
    ]


def _training(facts: Mapping[str, Any]) -> str:
    """How it was trained, from `training.release.training_facts`."""
    begun = ""
    if "initial_weights" in facts:
        start = facts["initial_weights"]
        begun = f"from the weights of {start}, " if start else "once, from scratch, "
    width = facts.get("sigma_rel")
    average = f"power-function average of the weights with σ_rel {width}, " if width else ""
    threads = f" with {facts['threads']} thread" if facts["device"] == "cpu" else ""
    return (
        f"{begun}{facts['steps']:,} steps of {facts['batch_size']}, {average}{facts['seconds']:,} s on "
        f"{facts['device']}{threads}, torch {facts['torch']}, seed {facts['seed']}: `{facts['command']}`"
        + (f"; {facts['note']}" if "note" in facts else "")
    )
