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
    released with. Forecasts are kept in the folder `verification` beside the checkpoint, where the report is
    written too; if it is stopped, the same command resumes where it was.
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
    store = open_store(store_path(STORE))
    steps = steps_of(forecaster, request.lead_time)
    starts = scored_starts(store, request.lead_time)
    work = request.checkpoint.parent / "verification"
    forecast, scores = run_protocol(forecaster, starts, steps, MEMBERS, data=store, folder=work / "forecasts")
    save_report(work, forecast, scores, store, title=request.checkpoint.stem)
    calls = network_calls(forecaster.settings)
    leads = shown_leads(scores)
    release = forecaster.release.model_copy(
        update={
            "store": STORE,
            "training": forecaster.release.training | ({"note": request.note} if request.note else {}),
            "scores": {
                "protocol": f"test year {YEAR}, {len(starts)} starts every {EVERY.astype(int)} days, "
                f"{MEMBERS} members, steps of {forecaster.release.step}, {calls} network calls a step",
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
        markdown_table(scores, leads),
        measured_weaknesses(scores.sel(lead_time=leads)),
        search_report,
    )
    path.with_suffix(".md").write_text(card, encoding="utf-8")
    return path


def scored_starts(store: Store, lead_time: np.timedelta64) -> np.ndarray:
    """The protocol's starts, without those whose truth at `lead_time` lies beyond the store; (start,)."""
    dates = store.dates[np.char.startswith(store.dates.astype(str), YEAR)]
    return spread_out(dates[dates + lead_time <= store.dates[-1]], STARTS, EVERY)


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
    name: str, release: Mapping[str, Any], size: int, table: str, measured: Sequence[str], search_report: str
) -> str:
    """The model card in Markdown, with a table of scores, the sampler search, and the weaknesses found."""
    training = release["training"]
    passes = training["steps"] * training["batch_size"] / training["samples"]
    kind = "changes over a step" if "Tend" in release["model"] else "states"
    return "\n".join(
        [
            f"# {name}",
            "",
            f"`{release['model']}`: an EDM diffusion model of {kind}, {release['step']} a step, on the "
            "example atmosphere (SPEEDY, 64×32 Gaussian grid).",
            "",
            *_facts(release, size),
            "",
            f"## Scores\n\nProtocol: {release['scores']['protocol']}.",
            "",
            table,
            "",
            "The fair CRPS stands beside that of simple forecasts, which for a single forecast is its mean "
            "absolute error; ± is half the 95 % interval of a block bootstrap over the starts. "
            "Deterministic: one network call a step. Spread/skill is 1 for a calibrated ensemble; rank p is "
            "the p-value of a flat rank histogram; spectra: least and most power of members over truth for "
            "wavenumbers 1–20.",
            "",
            *(["## The sampler search", "", "```", search_report, "```", ""] if search_report else []),
            "## Known weaknesses",
            "",
            *[f"- {weakness}" for weakness in measured],
            "- One simulated climate without interannual forcing, coarse resolution, no humidity; "
            f"{passes:.1f} passes over the data. It is an example to learn from, not a weather forecast.",
            "",
        ]
    )


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
        f"- **Training**: {training['steps']:,} steps of {training['batch_size']}, "
        f"{training['seconds'] / 60:.0f} min on {training['device']} with {training['threads']} thread, "
        f"torch {training['torch']}, seed {training['seed']}: `{training['command']}`"
        + (f"; {training['note']}" if "note" in training else ""),
        f"- **Sampling defaults**: {release['inference_defaults']}",
    ]
