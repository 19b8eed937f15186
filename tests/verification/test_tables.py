import io
import re

import numpy as np
import xarray as xr
from rich.console import Console

from diffusion_lab.verification import format_lead_time, score_table

SCORES = xr.Dataset(
    {
        "fair_crps": (("variable", "lead_time"), [[0.4567, 0.9], [30.0, 1234.4]]),
        "persistence_mae": (("variable", "lead_time"), [[2.0, 3.0], [100.0, 900.0]]),
        "rmse": (("variable", "lead_time"), [[1.0, 4.0], [60.0, 70.0]]),
        "persistence_rmse": (("variable", "lead_time"), [[3.0, 3.5], [150.0, 160.0]]),
        "spread_skill": (("variable", "lead_time"), [[0.987, 1.0], [1.1, 1.2]]),
    },
    coords={
        "variable": ["t850", "z500"],
        "units": ("variable", ["K", "m2 s-2"]),
        "lead_time": np.array([24, 120], "timedelta64[h]"),
    },
    attrs={"num_members": 16, "num_starts": 26},
)


def printed(table, **options):
    console = Console(file=io.StringIO(), width=80, **options)
    console.print(table)
    return console.file.getvalue()


def test_rows_hold_the_scores_with_units():
    lines = [line.split() for line in printed(score_table(SCORES, "Test year")).splitlines() if line.strip()]
    assert lines[0] == ["Test", "year"]
    assert ["t850", "[K]", "24", "h", "0.457", "2", "1", "3", "0.99"] in lines
    assert ["5", "d", "1234", "900", "70", "160", "1.20"] in lines
    assert ["z500", "[m2", "s-2]", "24", "h", "30", "100", "60", "150", "1.10"] in lines
    assert "26 starts, 16 members" in " ".join(lines[-1])


def test_scores_are_green_only_where_they_beat_the_baseline():
    text = printed(score_table(SCORES), force_terminal=True, color_system="standard")
    coloured = re.findall("\x1b\\[(32|31)m *([0-9.]+)", text)
    green, red = (({value for code, value in coloured if code == want}) for want in ("32", "31"))
    assert green == {"0.457", "0.9", "1", "30", "60", "70"}
    assert red == {"4", "1234"}


def test_lead_times():
    leads = [np.timedelta64(hours, "h") for hours in (6, 24, 36, 48, 240)]
    assert [format_lead_time(lead) for lead in leads] == ["6 h", "24 h", "36 h", "2 d", "10 d"]
