"""`diffusion-lab guide`: coming from ECMWF's guide "Diffusion-based training" to this package."""

from __future__ import annotations

from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Column, Table

from diffusion_lab.config.names import NAMES

COMMANDS = {
    "diffusion-lab train --config-dir . --config-name mine": "train on ./mine.yaml",
    "    --cfg job": "… or only show the config",
    "    system.input.dataset=my.zarr": "… on your own store",
    "diffusion-lab forecast run.yaml": "forecast by the inference file",
    "    checkpoint=runs/mine/mine.safetensors": "… with what you trained",
}

PLACES = {
    "model.model": {"_target_": "network of states, or (…Tend…) of tendencies"},
    "model.model.diffusion": {
        "sigma_max": "highest noise level, in training and sampling",
        "sigma_min": "lowest noise level, in training and sampling",
        "rho": "levels are evenly spaced in σ^(1/ρ)",
        "sigma_data": "standard deviation of what is denoised",
        "noise_channels": "width of the noise embedding",
        "noise_cond_dim": "width of the conditioning, in every layer norm",
        "noise_embedder": "class that embeds the noise level",
        "inference_defaults": "how its checkpoint samples by default",
    },
    "model": {
        "layer_kernels.LayerNorm": "class of every conditional layer norm",
        "processor": "graphtransformer or transformer",
        "num_channels": "width of all nodes; num_heads divides it",
    },
    "training": {
        "model_task": "follows from the network by default",
        "objective": "what is corrupted, and how it is weighted",
        "objective.levels": "another distribution of noise levels",
        "training_loss.datasets": "the loss of the one dataset, under any name",
        "multistep_input": "past states that the network sees",
        "rollout": "{start: 1, max: 1}: one step at a time",
        "max_steps": "length of a training; lr, ema_decay, … beside it",
    },
    "graph": {"refinement": "of the icosahedron: 10·4^refinement + 2 nodes"},
    "data": {
        "timestep": "forecast step; tendencies need its statistics",
        "forcing": "variables that are input only",
        "diagnostic": "variables that are output only",
    },
    "dataloader": {"training": "{start: …, end: …}; so validation and test"},
    "system": {
        "input.dataset": "the store: a path, a URL, or a shipped name",
        "output": "folder of the run: checkpoints, logs, pictures",
    },
    "diagnostics": {"evaluation": "forecasts after training, scored and drawn"},
}

NOTES = (
    "Give your own class by its import path, in any _target_ or in model_task; its keys are checked against "
    "its signature.",
    "Your own group file may be short: what it leaves out is taken from the shipped group.",
    "config_validation: False skips all checks and ignores unknown keys.",
    "A sampler ends at σ = 0: 20 steps of Heun's method are 39 network calls.",
    "A trained Anemoi model forecasts here too: diffusion_lab.inference.from_anemoi(model, store). Its "
    "checkpoint is a pickle, which can run any code: loading it requires trust=True.",
    "Refused, with the reason: rollout.max above 1, bounding, more than one dataset.",
)


def show_guide(console: Console) -> None:
    """Print how to move from the guide to this package: commands, names, keys."""
    commands = Table.grid(padding=(0, 2))
    commands.add_column(no_wrap=True, style="cyan")
    commands.add_column(style="dim")
    for command, what in COMMANDS.items():
        commands.add_row(command, what)
    notes = Table.grid(padding=(0, 1, 0, 2))
    for note in NOTES:
        notes.add_row("•", note)
    console.print(
        '[bold]Coming from ECMWF\'s guide "Diffusion-based training"[/]\n',
        "Its configs and its inference file work here as they are, on the same stores.\n",
        Padding(commands, (0, 0, 1, 2), expand=False),
        "[bold]Names[/]\nAn [cyan]anemoi.[/] name means our class of the same role, anywhere in a config.",
        names_table(),
        "[bold]Keys[/]\nAll keys, with their values: diffusion-lab train --cfg job",
        places_table(),
        "[bold]Good to know[/]",
        notes,
        sep="\n",
    )


def names_table() -> Table:
    """Anemoi's classes beside ours, grouped by module."""
    table = Table(Column("Anemoi's class", no_wrap=True), Column("ours", no_wrap=True), box=SIMPLE_HEAD)
    for modules, pairs in groupby(NAMES.items(), lambda pair: [name.rpartition(".")[0] for name in pair]):
        table.add_row(*(f"{module}." for module in modules), style="dim")
        for pair in pairs:
            table.add_row(*(f"  {name.rpartition('.')[2]}" for name in pair))
    return table


def places_table() -> Table:
    """The guide's keys and what they are for."""
    table = Table(Column("key", no_wrap=True), "meaning", box=SIMPLE_HEAD)
    for group, keys in PLACES.items():
        table.add_row(group, style="dim")
        for key, what in keys.items():
            table.add_row(f"  [cyan]{key}[/]", what)
    return table
