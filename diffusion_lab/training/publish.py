"""Turn a run's checkpoint into a released one: scored on the test year, with a model card beside it.

    python -m diffusion_lab.training.publish runs/example-tendency/example-tendency.safetensors

The protocol is fixed, so that numbers can be compared: test year 2025 of the example store, 26 starts 14 days
apart, 16 members, 24 h, the checkpoint's own sampling defaults.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from diffusion_lab.assets import store_path
from diffusion_lab.data.store import Store, open_store
from diffusion_lab.inference.forecaster import Forecaster
from diffusion_lab.inference.release import load_release, save_release
from diffusion_lab.verification import forecast_starts, score, spread_out

STORE, YEAR, STARTS, EVERY, MEMBERS, STEPS = "example", "2025", 26, np.timedelta64(14, "D"), 16, 1
_SCORES = ("fair_crps", "persistence_mae", "climatology_mae", "rmse", "persistence_rmse", "climatology_rmse")


def publish(checkpoint: Path, folder: Path) -> Path:
    """Score a checkpoint by the protocol and write it, scores inside, with its model card.

    Args:
        checkpoint: a release checkpoint of a run.
        folder: where to; the name stays.

    Returns:
        The published file.
    """
    release, model, latitudes, longitudes = load_release(checkpoint)
    store = open_store(store_path(STORE))
    scores = protocol(Forecaster(release, model, latitudes, longitudes), store)
    calls = network_calls(release.inference_defaults)
    release = release.model_copy(
        update={
            "store": STORE,
            "scores": {
                "protocol": f"test year {YEAR}, {STARTS} starts every {EVERY}, {MEMBERS} members, "
                f"{release.step}, {calls} network calls a step",
                "by_variable": as_dict(scores),
            },
        }
    )
    path = folder / checkpoint.name
    save_release(path, release, model, latitudes, longitudes)
    path.with_suffix(".md").write_text(model_card(path.stem, release.model_dump(), path.stat().st_size))
    return path


def protocol(forecaster: Forecaster, store: Store) -> xr.Dataset:
    """Scores of the fixed protocol."""
    dates = store.dates[np.char.startswith(store.dates.astype(str), YEAR)]
    starts = spread_out(dates, STARTS, EVERY)
    return score(forecast_starts(forecaster, starts, STEPS, MEMBERS, data=store), store)


def network_calls(inference_defaults: Mapping[str, Mapping[str, Any]]) -> int:
    """Network calls of a forecast step: 2N − 1 for two-stage solvers, whose last step is Euler's; else N."""
    steps = inference_defaults["noise_scheduler"]["num_steps"]
    two_stage = inference_defaults["diffusion_sampler"]["sampler"] in ("heun", "dpmpp_2s")
    return 2 * steps - 1 if two_stage else steps


def as_dict(scores: xr.Dataset) -> dict[str, dict[str, float]]:
    """The last lead time's scores by variable, rounded to four digits."""

    def rounded(value: float) -> float:
        return value if value == 0 else round(value, 3 - math.floor(math.log10(abs(value))))

    at = scores.isel(lead_time=-1)
    return {
        name: {key: rounded(at[key].sel(variable=name).item()) for key in (*_SCORES, "spread_skill")}
        for name in map(str, scores["variable"].values)
    }


def model_card(name: str, release: Mapping[str, Any], size: int) -> str:
    """The model card, Markdown."""
    training, arguments = release["training"], release["arguments"]
    units = {v["name"]: v["units"] for v in release["variables"]}
    rows = [
        f"| {variable} [{units[variable]}] | {s['fair_crps']:g} "
        f"| {s['fair_crps'] / s['persistence_mae']:.2f} | {s['rmse']:g} "
        f"| {s['rmse'] / s['persistence_rmse']:.2f} | {s['rmse'] / s['climatology_rmse']:.2f} "
        f"| {s['spread_skill']:.2f} |"
        for variable, s in release["scores"]["by_variable"].items()
    ]
    kind = "changes over a step" if "Tend" in release["model"] else "states"
    by_role = {
        role: ", ".join(v["name"] for v in release["variables"] if v["role"] == role)
        for role in ("prognostic", "forcing", "diagnostic")
    }
    return "\n".join(
        [
            f"# {name}",
            "",
            f"`{release['model']}`: an EDM diffusion model of {kind}, {release['step']} a step, on the "
            "example atmosphere (SPEEDY, 64×32 Gaussian grid).",
            "",
            f"- **Network**: {arguments['processor']} processor, {arguments['num_channels']} channels, "
            f"{arguments['num_layers']} layers, {arguments['multistep_input']} past states; weights in half "
            f"precision, {size / 2**20:.1f} MiB.",
            f"- **Variables**: {by_role['prognostic']}; forcings {by_role['forcing']}.",
            f"- **Data**: {training['data']}, {training['window'][0]} to {training['window'][1]}, "
            f"{training['samples']:,} samples.",
            f"- **Training**: {training['steps']:,} steps of {training['batch_size']}, "
            f"{training['seconds'] / 60:.0f} min on {training['device']} with {training['threads']} thread, "
            f"torch {training['torch']}, seed {training['seed']}: `{training['command']}`"
            + (f"; {training['note']}" if "note" in training else ""),
            f"- **Sampling defaults**: {release['inference_defaults']}",
            "",
            f"Scores: {release['scores']['protocol']}.",
            "",
            "| variable | fair CRPS | / persistence MAE | RMSE of the mean | / persistence | / climatology "
            "| spread-skill |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
            "Known weaknesses: one simulated climate without interannual forcing, coarse resolution, no "
            "humidity; a few passes over less than five years of data. It is an example to learn from, not a "
            "forecast of the weather.",
            "",
        ]
    )


def main() -> None:
    """Publish the checkpoints named on the command line into the package's assets."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoints", nargs="+", type=Path, help="release checkpoints of runs")
    assets = Path(__file__).parents[1] / "assets"
    parser.add_argument(
        "--folder", type=Path, default=assets, help="where to (default: the package's assets)"
    )
    arguments = parser.parse_args()
    for checkpoint in arguments.checkpoints:
        print(publish(checkpoint, arguments.folder))


if __name__ == "__main__":
    main()
