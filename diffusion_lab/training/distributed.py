"""What the processes of one training exchange besides gradients."""

from __future__ import annotations

from typing import Any

import torch.distributed
from lightning.pytorch.utilities import rank_zero_only


def gather(items: list[Any], num_devices: int) -> list[Any]:
    """The items of all devices, in the order of the devices, the same on each; tensors must be the CPU's."""
    if num_devices == 1:
        return items
    lists: list[list[Any]] = [[] for _ in range(num_devices)]
    torch.distributed.all_gather_object(lists, items)
    return [item for one in lists for item in one]


def is_first() -> bool:
    """Whether this is the first of a training's processes, also before they know of each other."""
    return getattr(rank_zero_only, "rank", 0) == 0
