"""Run by `test_anemoi_datasets.py`: what anemoi-datasets reads in a store, as arrays in one .npz file."""

import sys

import numpy as np
import zarr
from anemoi.datasets import open_dataset

store, lead, out = sys.argv[1:]
assert zarr.__version__.startswith("2."), zarr.__version__
dataset = open_dataset(store)
present = [i for i in range(len(dataset)) if i not in dataset.missing]
np.savez(
    out,
    data=np.stack([dataset[i] for i in present]),
    present=present,
    dates=dataset.dates.astype("datetime64[s]"),
    missing=sorted(dataset.missing),
    variables=dataset.variables,
    field_shape=dataset.field_shape,
    frequency=np.timedelta64(dataset.frequency),
    latitudes=dataset.latitudes,
    longitudes=dataset.longitudes,
    constant_fields=sorted(dataset.constant_fields),
    **{f"state_{name}": values for name, values in dataset.statistics.items()},
    **{f"change_{name}": values for name, values in dataset.statistics_tendencies(lead).items()},
)
