"""Plots: one function each, which draws data on an Axes; `forecast_panel` composes a Figure.

The arguments that most of them share are described here and not again:

    ax        where to draw
    scores    scores of a forecast by variable and lead time, from `verification.score`

Functions are imported on first use: Matplotlib takes a second to import. None touches pyplot's state.
"""

from diffusion_lab import import_lazily

__all__, __getattr__ = import_lazily(
    __name__,
    {
        "forecasts": "forecast_panel nearest_cell plume",
        "graph": "graph_on_globe",
        "maps": "field_map",
        "scores": "rank_histogram reliability roc score_vs_lead scorecard spectra spectra_ratio spread_skill",
        "search": "optimisation_history paired_differences parameter_importance pareto_front",
        "training": "noise_schedule training_curves",
    },
)
