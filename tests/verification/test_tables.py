import io
import re

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from diffusion_lab.verification import format_lead_time, markdown_table, score_table, shown_leads
from diffusion_lab.verification.tables import three_digits

PAIR = ("variable", "lead_time")
SCORES = xr.Dataset(
    {
        "fair_crps": (PAIR, [[0.4567, 0.9], [30.0, 1234.4]]),
        "fair_crps_interval": (("bound", *PAIR), [[[0.4, 0.8], [25.0, 1200]], [[0.5, 0.94], [36.0, np.nan]]]),
        "persistence_mae": (PAIR, [[2.0, 3.0], [100.0, 900.0]]),
        "persistence_rmse": (PAIR, [[3.0, 3.5], [150.0, 160.0]]),
        "climatological_ensemble_fair_crps": (PAIR, [[0.8, 0.8], [70.0, 80.0]]),
        "climatological_ensemble_rmse": (PAIR, [[0.8, 0.8], [70.0, 80.0]]),
        "spread_skill": (PAIR, [[0.987, 1.0], [1.1, 1.2]]),
        "rank_p": (PAIR, [[0.001, 0.25], [0.5, 1.0]]),
        "power_ratio": ((*PAIR, "wavenumber"), np.tile([9.0, 0.95, 1.0, 1.13], (2, 2, 1))),
    },
    coords={
        "variable": ["t850", "z500"],
        "units": ("variable", ["K", "m2 s-2"]),
        "lead_time": np.array([24, 120], "timedelta64[h]"),
        "wavenumber": np.arange(4),
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
    assert lines[1] == ["lead", "fair", "CRPS", "pers.", "c.ens", "sp/sk", "rank", "p", "spectra"]
    assert ["t850", "24", "h", "0.457", "±0.05", "2.00", "0.800", "0.99", "0.001", "0.95–1.13"] in lines
    assert ["[K]", "5", "d", "0.900", "±0.07", "3.00", "0.800", "1.00", "0.250", "0.95–1.13"] in lines
    assert ["[m²", "s⁻²]", "5", "d", "1234", "900", "80.0", "1.20", "1.000", "0.95–1.13"] in lines
    assert "26 starts, 16 members" in " ".join(" ".join(line) for line in lines)


def test_lead_times_may_be_chosen():
    table = printed(score_table(SCORES, leads=[np.timedelta64(5, "D")]))
    assert "24 h" not in table
    assert "0.900 ±0.07" in table
    assert markdown_table(SCORES, [np.timedelta64(5, "D")]).splitlines() == [
        "| variable | lead | fair CRPS | persistence | climatological ensemble "
        "| spread/skill | rank p | spectra |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| t850 [K] | 5 d | 0.900 ±0.07 | 3.00 | 0.800 | 1.00 | 0.250 | 0.95–1.13 |",
        "| z500 [m² s⁻²] | 5 d | 1234 | 900 | 80.0 | 1.20 | 1.000 | 0.95–1.13 |",
    ]


def test_one_day_and_five_are_shown_where_they_are_there():
    hours = xr.Dataset(coords={"lead_time": np.arange(12, 132, 12).astype("timedelta64[h]")})
    assert [lead / np.timedelta64(1, "D") for lead in shown_leads(hours)] == [1, 5]
    without = shown_leads(hours.isel(lead_time=[1, 2, 3, 4]))
    assert [lead / np.timedelta64(1, "D") for lead in without] == [1, 2.5]
    assert len(shown_leads(hours.isel(lead_time=[0]))) == 1


def test_scores_are_green_only_where_they_beat_all_baselines():
    text = printed(score_table(SCORES), force_terminal=True, color_system="standard")
    coloured = re.findall("\x1b\\[(32|31)m *([0-9.]+)", text)
    green, red = (({value for code, value in coloured if code == want}) for want in ("32", "31"))
    assert green == {"0.457", "30.0"}
    assert red == {"0.900", "1234"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.04567, "0.0457"),
        (2.0, "2.00"),
        (-3.14159, "-3.14"),
        (68.0, "68.0"),
        (99.97, "100"),
        (1234.5, "1234"),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert three_digits(value) == text


def test_lead_times():
    leads = [np.timedelta64(hours, "h") for hours in (6, 24, 36, 48, 240)]
    assert [format_lead_time(lead) for lead in leads] == ["6 h", "24 h", "36 h", "2 d", "10 d"]
