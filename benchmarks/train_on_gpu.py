r"""Train a released checkpoint on one GPU: all states on the card, a whole step as one CUDA graph.

  diffusion-lab data create speedy example_train.zarr
  python benchmarks/train_on_gpu.py
  python benchmarks/train_on_gpu.py name=example-state model=graphtransformer_diffusion \
      training.max_steps=6550
  python benchmarks/train_on_gpu.py --device cpu name=trial training.max_steps=20 dataloader.batch_size=2
  diffusion-lab publish checkpoint=runs/example-tendency/example-tendency.safetensors

Network, objective, loss, batches and learning rates are those of `diffusion-lab train --config-name release`,
and any of its settings can be given as KEY=VALUE. A step of so small a network is over before Python has
launched it, so three things differ: the states of the training window are copied to the card once; forward
and backward pass, clipping, AdamW and the average are captured as one CUDA graph; and nothing is logged or
resumed, as a training takes minutes. On a CPU the same step runs uncaptured, for a trial.

Released is the power-function average of the weights (Karras et al. 2024, arXiv:2312.02696, Sec. 3.1), whose
length is a share of the training. In the end the loss by noise level is printed for dates of the training
window and for the validation window: where the second is far above the first, more years would help.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffusion_lab.config import compose, validate
from diffusion_lab.stores.module import ForecastDataset, StepSampler
from diffusion_lab.training.build import Run, build
from diffusion_lab.training.forecaster import decay_groups, warmup_cosine
from diffusion_lab.training.release import export_release, training_facts

LEVELS = (0.03, 0.1, 0.3, 1.0, 2.0, 5.0, 15.0, 50.0)


class States(NamedTuple):
    """All states that samples need, normalised, on one device.

    Attributes:
        inputs: (date, ensemble, grid, input variable).
        outputs: (date, ensemble, grid, output variable).
        rows: (sample, past states + 1) dates of each sample, that of its target last.
    """

    inputs: Tensor
    outputs: Tensor
    rows: Tensor

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Past states (batch, time, ensemble, grid, input), next ones (batch, 1, ensemble, grid, output)."""
        return self.inputs[rows[:, :-1]], self.outputs[rows[:, -1:]]


def states_on(device: torch.device, dataset: ForecastDataset) -> States:
    """Read each date of a dataset once, and copy the states to the device."""
    wanted = dataset.starts[:, None] + np.append(dataset.past, dataset.step)
    dates, rows = np.unique(wanted, return_inverse=True)
    inputs = dataset.normalise_input(torch.from_numpy(dataset.reader.inputs(dates)))
    outputs = dataset.normalise_output(torch.from_numpy(dataset.reader.outputs(dates)))
    rows = torch.from_numpy(rows.reshape(wanted.shape))
    return States(inputs.to(device), outputs.to(device), rows.to(device))


def power_exponent(sigma_rel: float) -> float:
    """γ of an average whose weights t^γ have the relative width sigma_rel (Karras et al. 2024, Algorithm 2).

    Raises:
        ValueError: sigma_rel is not between 0 and 12^(−1/2), the width of a plain average over all steps.
    """
    if not 0 < sigma_rel < 12**-0.5:
        raise ValueError(f"sigma_rel = {sigma_rel} must be above 0 and below {12**-0.5:.3f}")
    return float(np.roots([1, 7, 16 - sigma_rel**-2, 12 - sigma_rel**-2]).real.max())


class TrainingStep:
    """One step: losses of a batch, gradients, clipping, AdamW, average.

    It reads its batch, noise and rates from tensors that stay in place, and draws nothing itself, so that it
    can be captured.

    Args:
        run: built; its model is trained.
        states: of the training window, on the device to train on.
        sigma_rel: relative width of the average.

    Attributes:
        average: a tensor for each parameter of the model.
        loss_sum: of the steps since it was last set to 0.
    """

    def __init__(self, run: Run, states: States, sigma_rel: float) -> None:
        device, training = states.inputs.device, run.config.training
        self.training, self.objective, self.states = training, run.task.objective, states
        self.exponent = power_exponent(sigma_rel)
        self.model, self.loss = run.task.model.to(device).train(), run.task.loss.to(device)
        if self.objective.field is not None:
            self.objective.field.basis = self.objective.field.basis.to(device)
        self.parameters = list(self.model.parameters())
        self.average = [p.detach().clone() for p in self.parameters]
        self.rows = states.rows[:1].repeat(run.config.dataloader.batch_size, 1)
        self.sigma, self.coefficients = self.draws(len(self.rows))
        self.rate, self.forgotten, self.loss_sum = torch.zeros(3, device=device).unbind()
        self.optimizer = torch.optim.AdamW(
            decay_groups(self.model, training.weight_decay),
            lr=self.rate,
            betas=(0.9, 0.95),
            capturable=device.type == "cuda",
        )
        self._replay: Callable[[], None] = self._compute

    def __call__(self, step: int, samples: Sequence[int]) -> None:
        """Set what step number `step`, counted from 0, depends on; then make it."""
        self.rate.fill_(
            self.training.lr * warmup_cosine(step, self.training.warmup_steps, self.training.max_steps)
        )
        self.forgotten.fill_(1 - (1 - 1 / (step + 1)) ** (self.exponent + 1))
        self.rows.copy_(self.states.rows[torch.tensor(samples)])
        for kept, drawn in zip((self.sigma, self.coefficients), self.draws(len(samples)), strict=True):
            kept.copy_(drawn)
        self._replay()

    def capture(self) -> None:
        """Replay the step as a CUDA graph from now on; a few must have been made on another stream."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._compute()
        self._replay = graph.replay

    def draws(self, batch: int) -> tuple[Tensor, Tensor]:
        """Levels (batch, 1, ensemble, 1, 1), and noise as its field's coefficients or on the grid."""
        _, ensemble, grid, variables = self.states.outputs.shape
        field = self.objective.field
        places = grid if field is None else field.num_modes
        device = self.states.outputs.device
        sigma = self.objective.levels.sample(batch, ensemble, torch.default_generator).to(device)
        return sigma, torch.randn(batch, 1, ensemble, places, variables, device=device)

    def losses(self, states: States, rows: Tensor, sigma: Tensor, coefficients: Tensor) -> Tensor:
        """(batch, ensemble) of samples of `states`, corrupted by what `draws` gives."""
        x, state = states.batch(rows)
        target = self.model.to_target(state, x[:, -1:])
        field = self.objective.field
        noise = coefficients if field is None else field.synthesise(coefficients)
        weights = self.objective.pre_loss_weights(sigma)
        return self.loss.per_sample(self.model(x, target + sigma * noise, sigma), target, weights)

    def _compute(self) -> None:
        loss = self.losses(self.states, self.rows, self.sigma, self.coefficients).mean()
        loss.backward()
        if self.training.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.training.gradient_clip, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)
        with torch.no_grad():
            for average, parameter in zip(self.average, self.parameters, strict=True):
                average.lerp_(parameter, self.forgotten)
            self.loss_sum.add_(loss)


def train(run: Run, states: States, sigma_rel: float) -> TrainingStep:
    """Make all steps of a run; its model ends with the averaged weights, in evaluation mode."""
    steps, batch = run.config.training.max_steps, run.config.dataloader.batch_size
    seed, every = run.config.training.seed, max(steps // 10, 1)
    torch.manual_seed(seed + 1)  # of levels and noise; the initial weights were drawn with the seed itself
    step = TrainingStep(run, states, sigma_rel)
    order = iter(StepSampler(len(states.rows), batch, steps, seed))
    first = 0
    if states.inputs.device.type == "cuda":
        first = min(4, steps)
        _warm_up(step, [list(islice(order, batch)) for _ in range(first)])
        step.capture()
    began = time.perf_counter()
    for i in range(first, steps):
        step(i, list(islice(order, batch)))
        if (i + 1) % every == 0:
            mean, pace = step.loss_sum.item() / every, (time.perf_counter() - began) / (i + 1 - first)
            print(f"step {i + 1} of {steps}: loss {mean:.4f}, {1e3 * pace:.1f} ms a step", flush=True)
            step.loss_sum.zero_()
    with torch.no_grad():
        for parameter, average in zip(step.parameters, step.average, strict=True):
            parameter.copy_(average)
    step.model.eval()
    return step


def _warm_up(step: TrainingStep, batches: Sequence[Sequence[int]]) -> None:
    """The first steps, uncaptured: they make gradients and the optimiser's state, which stay in place."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for i, samples in enumerate(batches):
            step(i, samples)
    torch.cuda.current_stream().wait_stream(stream)


@torch.no_grad()
def losses_by_level(step: TrainingStep, states: States, count: int) -> list[float]:
    """Mean loss at each of `LEVELS` over at most `count` samples, with one noise for all levels."""
    chosen = torch.linspace(0, len(states.rows) - 1, min(count, len(states.rows))).long()
    torch.manual_seed(7)
    sigma, coefficients = step.draws(len(chosen))
    rows = states.rows[chosen.to(states.rows.device)]
    return [
        step.losses(states, rows, torch.full_like(sigma, level), coefficients).mean().item()
        for level in LEVELS
    ]


def main(words: Sequence[str] | None = None) -> Path:
    """Train as the command line says; returns the release checkpoint."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="settings, as for diffusion-lab train"
    )
    parser.add_argument("--config-name", default="release", help="the file to start from (default: release)")
    parser.add_argument("--device", default="cuda", help="cuda (default), cuda:1, …, or cpu for a trial")
    parser.add_argument(
        "--sigma-rel",
        type=float,
        default=0.05,
        help="width of the average of weights as a share of the training (default: 0.05)",
    )
    arguments = parser.parse_args(words)
    device, began = torch.device(arguments.device), time.perf_counter()
    torch.set_float32_matmul_precision("high")  # TF32 where the card has it
    config = validate(compose(arguments.overrides, arguments.config_name))
    run = build(config)
    trained_on, validated_on = (
        states_on(device, part) for part in (run.data.train_set, run.data.validation_set)
    )
    step = train(run, trained_on, arguments.sigma_rel)
    seconds = time.perf_counter() - began
    for name, states in {"training": trained_on, "validation": validated_on}.items():
        values = losses_by_level(step, states, len(validated_on.rows))
        shown = ", ".join(f"{level:g}: {value:.3f}" for level, value in zip(LEVELS, values, strict=True))
        print(f"loss by noise level, {name} window: {shown}")
    return _release(run, device, seconds, arguments.sigma_rel, sys.argv[1:] if words is None else words)


def _release(run: Run, device: torch.device, seconds: float, sigma_rel: float, words: Sequence[str]) -> Path:
    """Write the release checkpoint of a trained run into its folder."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    command = shlex.join(["python", "benchmarks/train_on_gpu.py", *words])
    facts = training_facts(run, command, seconds) | {"device": name, "sigma_rel": sigma_rel}
    run.folder.mkdir(parents=True, exist_ok=True)
    run.task.model.cpu()
    path = export_release(run, run.folder / f"{run.config.name}.safetensors", facts)
    print(f"released checkpoint: {path}")
    return path


if __name__ == "__main__":
    main()
