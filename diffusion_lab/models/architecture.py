"""The hyper-parameters of a network, in one place for models, configs and release files."""

from dataclasses import asdict, dataclass

PROCESSORS = ("graphtransformer", "transformer")


def check_count(name: str, value: object) -> None:
    """ValueError if the value of a field is a count and too small."""
    least = 0 if name == "trainable_size" else 1
    if type(value) is int and value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


@dataclass(frozen=True)
class Sizes:
    """The fields of `Architecture` that a config has in its group `model`; see there."""

    num_channels: int = 64
    num_layers: int = 8
    num_heads: int = 4
    mlp_ratio: int = 4
    processor: str = "graphtransformer"
    trainable_size: int = 8
    latent_skip: bool = True
    gradient_checkpointing: bool = False


@dataclass(frozen=True)
class Architecture(Sizes):
    """Sizes and switches of an encoder-processor-decoder network.

    A release file keeps these by name: a new field needs a default that leaves the networks of older files as
    they are. Those of the group `model` of a config belong into `Sizes`.

    Attributes:
        num_channels: width of all nodes.
        num_layers: processor blocks.
        num_heads: attention heads; divides num_channels.
        mlp_ratio: width of each MLP over num_channels.
        processor: "graphtransformer" (mesh neighbours) or "transformer" (all hidden nodes).
        trainable_size: learnt features per node and per edge.
        latent_skip: add the processor's input to its output.
        gradient_checkpointing: recompute blocks in the backward pass: less memory, a third more time.
        multistep_input: past states shown to the network.
        sigma_data: standard deviation of the target (EDM, Table 1).
        noise_channels: width of the noise embedding; even.
        noise_cond_dim: width of the conditioning vector.
        max_period: ratio of the highest to (nearly) the lowest frequency of the noise embedding.

    Raises:
        ValueError: a size that cannot be, or an unknown processor.
    """

    multistep_input: int = 2
    sigma_data: float = 1.0
    noise_channels: int = 32
    noise_cond_dim: int = 16
    max_period: float = 1000.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            check_count(name, value)
        if self.processor not in PROCESSORS:
            raise ValueError(f"processor must be one of {PROCESSORS}, got {self.processor!r}")
        if self.num_channels % self.num_heads:
            raise ValueError(
                f"num_heads = {self.num_heads} does not divide num_channels = {self.num_channels}"
            )
