"""The sampler search: the schedule and solver with the best ensemble for a given number of network calls."""

from diffusion_lab.verification.search.optimisation import SearchResult, search_sampler
from diffusion_lab.verification.search.scoring import SettingScorer, compare_scores
from diffusion_lab.verification.search.space import SearchSpace, describe, network_calls

__all__ = [
    "SearchResult",
    "SearchSpace",
    "SettingScorer",
    "compare_scores",
    "describe",
    "network_calls",
    "search_sampler",
]
