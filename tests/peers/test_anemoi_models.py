"""Real Anemoi diffusion models behind our `Forecaster`: the suite beside this file, in their environment."""

from pathlib import Path

SUITE = Path(__file__).with_name("suite_anemoi_models.py")


def test_their_models_forecast_here(anemoi_models, run_peer):
    options = ("-q", "--numprocesses=0", "-p", "no:cacheprovider", "--tb=short")
    output = run_peer(anemoi_models, "-m", "pytest", SUITE, *options)
    summary = output.strip().splitlines()[-1]
    assert " passed" in summary
    assert "skipped" not in summary
