"""Communication between the processes of a training, apart from gradients."""

from __future__ import annotations

from typing import Any

import torch.distributed
from lightning.pytorch.utilities import rank_zero_only


def gather(items: list[Any], num_devices: int) -> list[Any]:
    """The items of all devices, in their order, on each of them; tensors must be on the CPU."""
    if num_devices == 1:
        return items
    lists: list[list[Any]] = [[] for _ in range(num_devices)]
    torch.distributed.all_gather_object(lists, items)
    return [item for one in lists for item in one]


def is_first() -> bool:
    """Whether this is the first process of a training; known even before the process group exists."""
    return getattr(rank_zero_only, "rank", 0) == 0
