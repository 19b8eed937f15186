"""Training samples: their dates, order and batches, as a Lightning data module."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from diffusion_lab.stores.dates import lead_name, lead_timedelta, period, show_date, spread_out
from diffusion_lab.stores.states import Normalizer, StateReader
from diffusion_lab.stores.store import Store
from diffusion_lab.stores.variables import Variables


def forecast_starts(
    store: Store, step: np.timedelta64, multistep_input: int, window: Sequence[str | np.datetime64] | None
) -> np.ndarray:
    """Dates (start,) from which a one-step forecast can be made and verified with data inside a window.

    Dates whose sample includes a missing date are left out.

    Args:
        store: an open store.
        step: forecast step, a multiple of the store's frequency.
        multistep_input: number of input states, `step` apart, the last of them at the start.
        window: first and last date of the data, see `dates.period`; None for all.

    Raises:
        ValueError: if the step is not a multiple of the frequency, or there is no start.
    """
    stride, rest = divmod(step, store.frequency)
    if rest or stride < 1:
        raise ValueError(
            f"the forecast step {lead_name(step)} is not a multiple of the frequency "
            f"{lead_name(store.frequency)} of the store {store.path!r}; set data.timestep (in Python, step), "
            f"for example to {lead_name(store.frequency)}"
        )
    first, last = period(*window) if window is not None else (store.dates[0], store.dates[-1])
    good = ~store.missing & (store.dates >= first) & (store.dates <= last)
    offsets = np.arange(1 - multistep_input, 2) * int(stride)
    starts = np.arange(max(-offsets[0], 0), len(store.dates) - offsets[-1])
    starts = starts[np.all([good[starts + offset] for offset in offsets], axis=0)]
    if len(starts) == 0:
        raise ValueError(
            f"no sample of {multistep_input} input states and a target, each {lead_name(step)} apart, is "
            f"between {show_date(first)} and {show_date(last)} in {store!r}. "
            "Choose other dates, or a shorter step: data.timestep (in Python, step)"
        )
    return store.dates[starts]


class ForecastDataset(Dataset):
    """Samples (past states, next state), normalised.

    Args:
        reader: reads the states.
        starts: (start,) dates of the last input state.
        step: time between states.
        multistep_input: number of past states.
    """

    def __init__(
        self, reader: StateReader, starts: np.ndarray, step: np.timedelta64, multistep_input: int
    ) -> None:
        self.reader, self.starts, self.step = reader, starts, step
        self.past = np.arange(1 - multistep_input, 1) * step
        self.normalise_input = Normalizer.of(reader.store, reader.variables.input).normalise
        self.normalise_output = Normalizer.of(reader.store, reader.variables.output).normalise

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Past states (time, ensemble, grid, input) and the next state (1, ensemble, grid, output)."""
        start = self.starts[index]
        x = torch.from_numpy(self.reader.inputs(start + self.past))
        state = torch.from_numpy(self.reader.outputs([start + self.step]))
        return self.normalise_input(x), self.normalise_output(state)


class StepSampler(Sampler[int]):
    """A shuffled stream of samples that can start at any training step, which makes resuming exact.

    Position p of the stream is entry p mod n of the permutation of epoch p // n, so it depends only on the
    seed and the step. Each of several devices takes its batch of every step: together they take what one
    device with as large a batch does.

    Args:
        num_samples: n.
        batch_size: samples per step and device.
        num_steps: steps of the whole training.
        seed: seed of the permutations.
        first_step: the step to start from.
        device: number of this device.
        num_devices: how many take part.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        num_steps: int,
        seed: int,
        first_step: int = 0,
        device: int = 0,
        num_devices: int = 1,
    ) -> None:
        self.num_samples, self.seed, self.batch_size = num_samples, seed, batch_size
        self.steps, self.num_steps = range(first_step, num_steps), num_steps
        self.device, self.num_devices = device, num_devices

    def __len__(self) -> int:
        """Length of the whole stream, as Lightning itself counts the steps done."""
        return self.num_steps * self.batch_size

    def __iter__(self) -> Iterator[int]:
        drawn, order = -1, []
        for step in self.steps:
            first = (step * self.num_devices + self.device) * self.batch_size
            for position in range(first, first + self.batch_size):
                epoch, entry = divmod(position, self.num_samples)
                if epoch != drawn:
                    generator = torch.Generator().manual_seed(self.seed + epoch)
                    drawn, order = epoch, torch.randperm(self.num_samples, generator=generator).tolist()
                yield order[entry]


class ForecastDataModule(LightningDataModule):
    """The training and validation samples of a store.

    Args:
        store: an open store.
        variables: inputs and outputs of the network.
        train: first and last date of the training window.
        validation: first and last date of the validation window.
        step: forecast step, a timedelta64 or a length such as "1d".
        multistep_input: number of input states.
        batch_size: samples per training step and device.
        num_steps: number of training steps.
        validation_starts: number of forecasts in each validation, spread evenly over the window.
        num_workers: number of processes that read ahead; 0 reads between steps.
        seed: seed of the order of the samples.
    """

    def __init__(
        self,
        store: Store,
        variables: Variables,
        train: Sequence[np.datetime64 | str],
        validation: Sequence[np.datetime64 | str],
        *,
        step: np.timedelta64 | str = "1d",
        multistep_input: int = 2,
        batch_size: int = 4,
        num_steps: int = 1000,
        validation_starts: int = 8,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.batch_size, self.num_steps, self.num_workers, self.seed = (
            batch_size,
            num_steps,
            num_workers,
            seed,
        )
        length, reader = lead_timedelta(step), StateReader(store, variables)
        starts = forecast_starts(store, length, multistep_input, train)
        self.train_set = ForecastDataset(reader, starts, length, multistep_input)
        starts = spread_out(forecast_starts(store, length, multistep_input, validation), validation_starts)
        self.validation_set = ForecastDataset(reader, starts, length, multistep_input)

    def train_dataloader(self) -> DataLoader:
        """Batches (x, state) from the trainer's current step on."""
        done = self.trainer.global_step if self.trainer else 0
        sampler = StepSampler(
            len(self.train_set), self.batch_size, self.num_steps, self.seed, done, *self._device()
        )
        return self._loader(self.train_set, self.batch_size, sampler)

    def val_dataloader(self) -> DataLoader:
        """Batches of one start; each device takes its share of the starts."""
        device, num_devices = self._device()
        starts = range(device, len(self.validation_set), num_devices)
        return self._loader(self.validation_set, 1, starts)

    def _device(self) -> tuple[int, int]:
        """The rank of this device, and the number of devices."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader(self, dataset: Dataset, batch_size: int, sampler: Iterable[int]) -> DataLoader:
        workers = self.num_workers
        return DataLoader(
            dataset, batch_size, sampler=sampler, num_workers=workers, persistent_workers=workers > 0
        )
