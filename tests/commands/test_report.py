import re
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr

from diffusion_lab.commands.report import save_report
from diffusion_lab.verification import by_lead_time, score


@pytest.fixture(scope="module")
def report(toy_store, tmp_path_factory):
    """Of members that are the truth of t850 with a little noise, from five starts."""
    starts = np.datetime64("2024-12-01", "ns") + 10 * np.arange(5) * np.timedelta64(1, "D")
    leads = np.arange(1, 3) * np.timedelta64(1, "D")
    dates = (starts[:, None] + leads).astype("datetime64[s]")
    truth = np.stack(
        [toy_store.read([toy_store.index(date) for date in row], ["t850"])[:, 0, 0] for row in dates]
    )
    rng = np.random.default_rng(0)
    members = truth[:, :, None] + rng.normal(size=(5, 2, 4, truth.shape[-1]))
    forecast = xr.Dataset(
        {"t850": (("start", "lead_time", "ensemble", "cell"), members, {"units": "m2 s-2"})},
        {
            "lead_time": leads.astype("timedelta64[ns]"),
            "forecast_reference_time": ("start", starts),
            "latitude": ("cell", toy_store.latitudes),
            "longitude": ("cell", toy_store.longitudes),
        },
        {"field_shape": [12, 24]},
    )
    forecast = by_lead_time(forecast)
    scores = score(forecast, toy_store)
    folder = tmp_path_factory.mktemp("report")
    facts = {"Checkpoint": "a & b", "Truth": "/home/me/my stores/toy.zarr", "Run": "gs://all/of/it.zarr"}
    files = save_report(folder, forecast, scores, toy_store, title="A <test>", facts=facts)
    return scores, files


class Page(HTMLParser):
    """Tags with their attributes, and the text of the cells of the table."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.cells = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data):
        if self.cells:
            self.cells[-1] += data.strip()


def test_scores_are_kept_whole(report):
    scores, files = report
    with xr.open_dataset(files[0], engine="h5netcdf", decode_timedelta=True) as stored:
        xr.testing.assert_allclose(stored, scores)


def test_the_page_needs_nothing_but_itself(report):
    page = Page(report[1][1].read_text(encoding="utf-8"))
    assert not {"link", "script", "iframe"} & {tag for tag, _ in page.tags}
    pictures = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 2 + 1 + 2 * 2  # overview; scores; calibration and maps at two lead times
    assert all(re.match("data:image/png;base64,iVBOR", picture) for picture in pictures)
    alts = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert len(set(alts)) == len(alts) and all(len(alt.split()) > 4 for alt in alts)
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert {f"#{attributes['id']}" for tag, attributes in page.tags if "id" in attributes} == set(links)


def test_the_page_shows_the_scores_and_what_was_done(report):
    text = report[1][1].read_text(encoding="utf-8")
    assert "<h1>A &lt;test&gt;</h1>" in text
    assert "<dt>Checkpoint</dt><dd>a &amp; b</dd>" in text
    assert "<dd>toy.zarr</dd>" in text and "home" not in text  # a report is given to others
    assert "<dd>gs://all/of/it.zarr</dd>" in text
    assert "<dt>Starts</dt><dd>2024-12-01T00:00 to 2025-01-10T00:00</dd>" in text
    cells = Page(text).cells
    row = cells[: len(cells) // 2 + 1]  # the variable's cell spans the rows of both lead times
    assert row[:2] == ["t850[m² s⁻²]", "24 h"]
    at = report[0].sel(variable="t850").isel(lead_time=0)
    # Of N(0, 1) members about the truth: spread 1, mean squared error 1/4, so spread/skill √5.
    assert float(row[2]) == pytest.approx(at["fair_crps"].item(), rel=5e-3)
    assert f"{at['spread_skill'].item():.2f}" in row
    assert at["spread_skill"].item() == pytest.approx(np.sqrt(5), rel=0.05)
