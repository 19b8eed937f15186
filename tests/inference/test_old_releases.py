"""Release files of earlier versions are read, and answer as they did when they were released."""

from pathlib import Path

import pytest
import torch

from diffusion_lab.assets import checkpoints
from diffusion_lab.inference import load_release

OLD = {
    # Means over the grid of D(y; 0.7) for each variable, and the standard deviation of all values.
    Path(__file__).parent / "old" / "example-state.safetensors": (
        [-0.57073, -0.85903, -0.23936, -0.11387, -0.73130],
        0.47829,
    ),
    checkpoints()["example-tendency-weak"]: (
        [-0.49006, -0.25268, -0.24536, -0.14634, -0.34294],
        0.52372,
    ),
}


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.stem)
def test_an_old_file_answers_as_it_did(path):
    means, stdev = OLD[path]
    _, model, latitudes, _ = load_release(path)
    places = torch.linspace(0, 6, 2 * len(latitudes) * 16)
    x = places.sin().reshape(1, 2, 1, len(latitudes), 16)
    y = (3 * places[: len(latitudes) * 5]).cos().reshape(1, 1, 1, len(latitudes), 5)
    with torch.inference_mode():
        denoised = model.denoiser(x)(y, torch.tensor(0.7, dtype=torch.float64))
    torch.testing.assert_close(denoised[0, 0, 0].mean(0), torch.tensor(means), rtol=0, atol=2e-5)
    assert denoised.std().item() == pytest.approx(stdev, abs=2e-5)
