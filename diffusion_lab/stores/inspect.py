"""What is in a store, as a table for the terminal."""

from __future__ import annotations

import fsspec
from rich.console import Group, RenderableType
from rich.table import Table

from diffusion_lab.stores.dates import lead_name, show_date
from diffusion_lab.stores.store import Store


def describe_store(store: Store) -> RenderableType:
    """Describe a store: dates, grid and size, then a line with role, units and statistics per variable."""
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
    attributes = store.attributes
    resolution = str(attributes.get("resolution", ""))
    shape = store.field_shape
    grid = (
        f"{' x '.join(map(str, shape))} = {len(store.latitudes)} cells"
        if len(shape) > 1
        else f"{shape[0]} cells"
    )
    # A list of stations has no resolution but their number.
    named = resolution not in ("", str(shape[0]))
    missing = [show_date(date) for date in store.dates[store.missing]]
    window = store.statistics_window
    files, root = fsspec.core.url_to_fs(store.path)
    lost = store.lost_chunks()
    facts = {
        "store": store.path,
        "description": str(attributes.get("description", "")),
        "dates": f"{len(store.dates)}, {show_date(store.dates[0])} to {show_date(store.dates[-1])}, "
        f"every {lead_name(store.frequency)}",
        "missing": f"{len(missing)}: {', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}"
        if missing
        else "none",
        "statistics": f"over {window[0]} to {window[1]}" if window else "over unknown dates",
        "tendencies": f"Δ{', Δ'.join(store.tendency_leads)}: standard deviation of the change"
        if store.tendency_leads
        else "none",
        "grid": f"{f'{resolution}, ' if named else ''}{grid}, "
        f"latitude {store.latitudes.min():g} to {store.latitudes.max():g}, "
        f"longitude {store.longitudes.min():g} to {store.longitudes.max():g}",
        "members": str(store.ensemble_size),
        "size": f"{files.du(root) / 2**20:.1f} MiB on disk, {store.nbytes / 2**20:.1f} MiB as float32",
        "licence": str(attributes.get("licence", "")),
        "attribution": str(attributes.get("attribution", "")),
        "CUT SHORT": f"{lost} chunks of data are missing; make the store again, or copy it again."
        if lost
        else "",
    }
    return {name: value for name, value in facts.items() if value}
