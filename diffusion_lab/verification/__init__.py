"""Scores of ensemble forecasts.

`verification.ensemble` has the fast scores on torch tensors. The names listed here work on labelled forecasts
and are imported on first use, since the libraries behind them take seconds to import.
"""

from diffusion_lab import import_lazily

__all__, __getattr__ = import_lazily(
    __name__,
    {
        "baselines": "baselines_of truth_of",
        "forecasts": "case_means",
        "layout": "by_lead_time fields_like",
        "protocol": "deterministic_forecast forecast_ensembles run_protocol score",
        "search": "SearchSpace SettingScorer compare_scores search_sampler",
        "spectra": "PowerSpectrum",
        "summary": "summarise",
        "tables": "format_lead_time markdown_table score_table shown_leads",
    },
)
