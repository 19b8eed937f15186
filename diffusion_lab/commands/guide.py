"""`diffusion-lab guide`: coming from ECMWF's guide "Diffusion-based training" to this package."""

from __future__ import annotations

from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from diffusion_lab.config.names import NAMES

COMMANDS = {
    "diffusion-lab train --config-dir . --config-name mine": "train on ./mine.yaml",
    "    --cfg job": "… no: show what it says",
    "    system.input.dataset=my.zarr": "… on your own store",
    "diffusion-lab forecast run.yaml": "the inference file",
    "    checkpoint=runs/mine/mine.safetensors": "… with what you trained",
}

PLACES = {
    "model.model": {
        "_target_": "network of states, or (…Tend…) of tendencies",
    },
    "model.model.diffusion": {
        "sigma_max": "highest noise level, of training and sampling",
        "sigma_min": "lowest noise level, likewise",
        "rho": "levels are even in σ^(1/ρ), likewise",
        "sigma_data": "standard deviation of what is denoised",
        "noise_channels": "width of the noise embedding",
        "noise_cond_dim": "width of the conditioning, in every layer norm",
        "noise_embedder": "class that embeds the noise level",
        "inference_defaults": "how its checkpoint samples unless told otherwise",
    },
    "model": {
        "layer_kernels.LayerNorm": "class of every conditional layer norm",
        "processor": "graphtransformer or transformer",
        "num_channels": "width of all nodes; num_heads divides it",
    },
    "training": {
        "model_task": "follows from the network where it is left out",
        "objective": "what is corrupted, and how it is weighted",
        "objective.levels": "another distribution of noise levels",
        "training_loss.datasets": "the loss of the one dataset, under any name",
        "multistep_input": "past states that the network sees",
        "rollout": "{start: 1, max: 1}: one step at a time",
        "max_steps": "length of a training; lr, ema_decay, … beside it",
    },
    "graph": {
        "refinement": "of the icosahedron: 10·4^refinement + 2 nodes",
    },
    "data": {
        "timestep": "forecast step; tendencies need its statistics",
        "forcing": "names that are input only",
        "diagnostic": "names that are output only",
    },
    "dataloader": {
        "training": "{start: …, end: …}; so validation and test",
    },
    "system": {
        "input.dataset": "the store: a path, a URL, or a shipped name",
        "output": "folder of the run: checkpoints, logs, pictures",
    },
    "diagnostics": {
        "evaluation": "forecasts that end a training, scored and drawn",
    },
}

NOTES = (
    "A class of your own is named by its import path, in any _target_ and in model_task; its keys are "
    "checked against its own signature.",
    "A group file of your own may be short: what it leaves out is as in the shipped group.",
    "config_validation: False leaves out the checks, and leaves unknown keys aside.",
    "A sampler ends at σ = 0: 20 steps of Heun's method are 39 network calls.",
    "A trained Anemoi model forecasts here, too: diffusion_lab.inference.from_anemoi(model, store). Its "
    "checkpoint is a pickle, which can run any code: loading one asks for trust=True.",
    "Refused, with the reason: rollout.max above 1, bounding, more than one dataset.",
)


def show_guide(console: Console) -> None:
    """Print how to come from the guide: commands, the table of names, what stands where."""
    commands = Table.grid(padding=(0, 2))
    commands.add_column(no_wrap=True, style="cyan")
    commands.add_column(style="dim")
    for command, what in COMMANDS.items():
        commands.add_row(command, what)
    notes = Table.grid(padding=(0, 1, 0, 2))
    for note in NOTES:
        notes.add_row("•", note)
    console.print(
        Text('Coming from ECMWF\'s guide "Diffusion-based training"', style="bold"),
        "\nIts configs and its inference file work here as they are, on the same stores.\n",
        Padding(commands, (0, 0, 0, 2)),
        "",
        _section("Names", "An [cyan]anemoi.[/] name means our class of the same role, wherever it stands."),
        names_table(),
        _section("What stands where", "All keys, with their values: diffusion-lab train --cfg job"),
        places_table(),
        _section("Good to know", ""),
        notes,
        sep="\n",
    )


def _section(title: str, text: str) -> RenderableType:
    return Group(Text(title, style="bold"), text) if text else Text(title, style="bold")


def names_table() -> Table:
    """Anemoi's classes beside ours, under the modules that they are imported from."""
    table = Table("Anemoi's class", "ours", box=SIMPLE_HEAD)
    for column in table.columns:
        column.no_wrap = True

    def modules(names: tuple[str, str]) -> tuple[str, ...]:
        return tuple(name.rpartition(".")[0] for name in names)

    for (theirs, ours), pairs in groupby(NAMES.items(), modules):
        table.add_row(f"{theirs}.", f"{ours}.", style="dim")
        for pair in pairs:
            table.add_row(*(f"  {name.rpartition('.')[2]}" for name in pair))
    return table


def places_table() -> Table:
    """The guide's keys and what they are for."""
    table = Table("key", "what it says", box=SIMPLE_HEAD)
    table.columns[0].no_wrap = True
    for group, keys in PLACES.items():
        table.add_row(group, style="dim")
        for key, what in keys.items():
            table.add_row(f"  [cyan]{key}[/]", what)
    return table
