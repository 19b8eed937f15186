"""Diffusion-based probabilistic weather forecasting on graphs, notebook first."""

__version__ = "0.1.0"
