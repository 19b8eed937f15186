"""Is the data there when the training step wants it, and does memory stay where it is?

read     samples a second that the data module delivers, alone, in the shuffled order of training
step     samples a second that the training step takes: the shipped default network, the quickest reader
waiting  share of a training's time spent waiting for its next batch
memory   growth of resident memory while training on a store of 20 GB (logical: chunks that were never
         written read as zeros, so the disk holds next to nothing)

python benchmarks/data.py [--steps 100] [--threads 1]
"""

import argparse
import itertools
import platform
import resource
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import zarr

from diffusion_lab.assets import store_path
from diffusion_lab.config import compose, validate
from diffusion_lab.training.build import Run, build
from diffusion_lab.training.fit import fit

GIGABYTES = 20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=100, help="training steps measured (default: 100)")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        run = prepare(Path(folder) / "example", "example", arguments.steps)
        read = reading_speed(run, arguments.steps)
        step, waiting = training_speed(run, arguments.steps)
        print(f"torch {torch.__version__}, {platform.machine()}, {arguments.threads} thread(s)\n")
        print(f"read     {read:8.1f} samples/s")
        print(f"step     {step:8.1f} samples/s: reading sustains {read / step:.0f} times that")
        print(f"waiting  {waiting:8.1%} of the training's time")
        big = logical_store(Path(folder) / "big.zarr", GIGABYTES)
        print(f"memory   {memory_growth(Path(folder) / 'big', big, arguments.steps):8.0f} MB more after "
              f"{arguments.steps} steps on a store of {GIGABYTES} GB")  # fmt: skip


def prepare(folder: Path, store: str, steps: int, *overrides: str) -> Run:
    """The default training on a store, without validation, evaluation or pictures."""
    settings = (
        f"system.output={folder}",
        f"system.input.dataset={store}",
        "system.accelerator=cpu",
        f"training.max_steps={steps}",
        f"diagnostics.validation.every_n_steps={steps}",
        "diagnostics.validation.starts=1",
        "diagnostics.validation.num_steps=1",
        "diagnostics.progress_bar=false",
        "diagnostics.tensorboard=false",
        f"diagnostics.checkpoint_every_n_steps={steps}",
    )
    return build(validate(compose([*settings, *overrides])))


def reading_speed(run: Run, batches: int) -> float:
    """Samples a second, the median over batches, once the store's first chunks are decoded."""
    loader = iter(run.data.train_dataloader())
    for _ in itertools.islice(loader, 20):
        pass
    seconds = []
    for _ in range(min(batches, run.data.num_steps - 20)):
        began = time.perf_counter()
        next(loader)
        seconds.append(time.perf_counter() - began)
    return run.data.batch_size / statistics.median(seconds)


def training_speed(run: Run, steps: int) -> tuple[float, float]:
    """Samples a second of the training step, and the share of time spent waiting for batches."""
    task, optimizer = run.task, torch.optim.AdamW(run.task.parameters())
    task.log = lambda *_, **__: None  # the step without Lightning around it
    loader = iter(run.data.train_dataloader())
    waits, works = [], []
    for index in range(min(steps, run.data.num_steps)):
        began = time.perf_counter()
        batch = next(loader)
        arrived = time.perf_counter()
        optimizer.zero_grad()
        task.training_step(batch, index)["loss"].backward()
        optimizer.step()
        waits.append(arrived - began)
        works.append(time.perf_counter() - arrived)
    step, wait = statistics.median(works), statistics.median(waits)
    return run.data.batch_size / step, wait / (wait + step)


def logical_store(path: Path, gigabytes: float) -> str:
    """A store with the example's variables and cells whose hourly dates make up the size."""
    source = Path(store_path("example"))
    shutil.copytree(source, path, ignore=lambda folder, names: names if Path(folder).name == "data" else [])
    template = zarr.open_group(source, mode="r")
    group = zarr.open_group(path, mode="r+", zarr_format=2)
    _, *shape = template["data"].shape
    dates = int(gigabytes * 1e9 / (4 * np.prod(shape)))
    for name, values in {"dates": template["dates"][0] + np.arange(dates) * np.timedelta64(1, "h")}.items():
        group.create_array(name, data=values, overwrite=True)
    group.create_array(
        "data", shape=(dates, *shape), chunks=(1, *shape), dtype="f4", fill_value=0.0, overwrite=True
    )
    group.attrs.update(frequency="1h", start_date=str(dates), missing_dates=[])
    zarr.consolidate_metadata(group.store, zarr_format=2)
    return str(path)


def memory_growth(folder: Path, store: str, steps: int) -> float:
    """MB of peak resident memory gained by training, beyond the first quarter of the steps."""
    years = [
        f"dataloader.{window}.{end}=2024" for window in ("training", "validation") for end in ("start", "end")
    ]
    peaks = []
    for part in (steps // 4, steps):
        fit(prepare(folder / str(part), store, part, *years, "data.timestep=1d"))
        peaks.append(
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
        )
    return peaks[1] - peaks[0]


if __name__ == "__main__":
    main()
