"""The contents of a store, as a table for the terminal."""

from __future__ import annotations

import fsspec
from rich.console import Group, RenderableType
from rich.table import Table

from diffusion_lab.stores.dates import lead_name, show_date
from diffusion_lab.stores.store import Store


def describe_store(store: Store) -> RenderableType:
    """Describe a store: dates, grid and size, then the role, units and statistics of each variable."""
    about = Table.grid(padding=(0, 2))
    for name, value in _facts(store).items():
        about.add_row(name, value)
    variables = Table(box=None, pad_edge=False)
    for heading in ("variable", "role", "units"):
        variables.add_column(heading, no_wrap=True)
    # The change over a lead time, by its standard deviation.
    changes = [f"Δ{lead}" for lead in store.tendency_leads]
    for heading in ("mean", "stdev", "min", "max", *changes):
        variables.add_column(heading, justify="right")
    tendencies = [store.tendency_statistics(lead).stdev for lead in store.tendency_leads]
    statistics = store.statistics
    columns = (statistics.mean, statistics.stdev, statistics.minimum, statistics.maximum, *tendencies)
    for index, name in enumerate(store.variables):
        numbers = (f"{column[index]:.4g}" for column in columns)
        variables.add_row(name, store.roles[name], store.units(name), *numbers)
    return Group(about, variables)


def _facts(store: Store) -> dict[str, str]:
    about = {name: str(value) for name, value in store.attributes.items()}
    shape, lat, lon = store.field_shape, store.latitudes, store.longitudes
    places = f"latitude {lat.min():g} to {lat.max():g}, longitude {lon.min():g} to {lon.max():g}"
    grid = f"{' x '.join(map(str, shape))} = {len(lat)} cells" if len(shape) > 1 else f"{len(lat)} cells"
    # The resolution of a list of stations is only their number.
    if about.get("resolution", "") not in ("", str(shape[0])):
        grid = f"{about['resolution']}, {grid}"
    first, last = (show_date(date) for date in store.dates[[0, -1]])
    missing = [show_date(date) for date in store.dates[store.missing]]
    some = f"{len(missing)}: {', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}"
    window = " to ".join(store.statistics_window or ("unknown dates",))
    leads = ", ".join(f"Δ{lead}" for lead in store.tendency_leads)
    files, root = fsspec.core.url_to_fs(store.path)
    lost = store.lost_chunks()
    facts = {
        "store": store.path,
        "description": about.get("description"),
        "dates": f"{len(store.dates)}, {first} to {last}, every {lead_name(store.frequency)}",
        "missing": some if missing else "none",
        "statistics": f"over {window}",
        "tendencies": f"{leads}: standard deviation of the change" if leads else "none",
        "grid": f"{grid}, {places}",
        "members": str(store.ensemble_size),
        "size": f"{files.du(root) / 2**20:.1f} MiB on disk, {store.nbytes / 2**20:.1f} MiB as float32",
        "licence": about.get("licence"),
        "attribution": about.get("attribution"),
        "CUT SHORT": lost and f"{lost} chunks of data are missing; make the store again, or copy it again.",
    }
    return {name: str(value) for name, value in facts.items() if value}
