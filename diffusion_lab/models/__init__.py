"""Networks: an encoder-processor-decoder on graphs, conditioned on the noise level in every block."""

from diffusion_lab.models.architecture import Architecture
from diffusion_lab.models.embeddings import NoiseConditioning, SinusoidalEmbeddings
from diffusion_lab.models.encoder_processor_decoder import (
    DiffusionModelEncProcDec,
    DiffusionTendModelEncProcDec,
)
from diffusion_lab.models.normalization import ConditionalLayerNorm

__all__ = [
    "Architecture",
    "ConditionalLayerNorm",
    "DiffusionModelEncProcDec",
    "DiffusionTendModelEncProcDec",
    "NoiseConditioning",
    "SinusoidalEmbeddings",
]
