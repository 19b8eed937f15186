"""Real Anemoi diffusion models behind our `Forecaster`: the suite beside this file, in their environment."""

from pathlib import Path

SUITE = Path(__file__).with_name("suite_anemoi_models.py")


def test_their_models_forecast_here(anemoi_models, run_peer):
    output = run_peer(anemoi_models, "-m", "pytest", SUITE, "-q", "-p", "no:cacheprovider", "--tb=short")
    summary = output.strip().splitlines()[-1]
    assert " passed" in summary
    assert "skipped" not in summary
