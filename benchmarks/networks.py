"""The networks that `train_step.py` and `sampling.py` time: ours and the peer's, each in a process.

Both get the same graph, widths and tensors. A process builds one network, then answers requests on its
standard input, one at a time, so that the two can be timed in turn (A B A B) and share what the machine does
meanwhile. Both samplers end at σ = 0: 39 network calls for 20 Heun steps.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import date
from pathlib import Path

import torch
from torch import Tensor, nn

CHANNELS, HEADS, LAYERS, MLP_RATIO, VARIABLES, STATES, CONDITION = 128, 16, 8, 4, 6, 2, 16
# The peer's blocks have one linear map more than ours; learnt features bring us within 5 % of its parameters.
TRAINABLE, OUR_TRAINABLE = 8, 12
STEPS = 20
PROCESSORS = ("graphtransformer", "transformer")


class Worker:
    """A process that holds one network and times it when asked."""

    def __init__(self, name: str, python: str, processor: str, threads: int, *options: str) -> None:
        command = [python, __file__, name.split()[0], processor, str(threads), *options]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
        self.name = name
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.facts = self._answer()

    def ask(self, what: str, batch: int) -> dict[str, float]:
        """Do `what` ("forward", "train", "sample" or "product") once; seconds, and peak memory in MB."""
        self.process.stdin.write(json.dumps([what, batch]) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, float]:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: the process ended with {self.process.wait()}")
        return json.loads(line)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.wait()


def timed_in_turn(workers: list[Worker], what: str, batch: int, repeats: int) -> dict[str, dict[str, float]]:
    """Medians over repeats, one run of each worker after the other.

    The first run of each is for warming up, but for ensembles: their calls were timed, and are warm, before.
    """
    answers = {worker.name: [] for worker in workers}
    warming = what != "sample"
    for repeat in range(repeats + warming):
        for worker in workers:
            answer = worker.ask(what, batch)
            if repeat >= warming:
                answers[worker.name].append(answer)
    return {
        name: {key: statistics.median(answer[key] for answer in some) for key in some[0]}
        for name, some in answers.items()
    }


def matrix_seconds(worker: Worker, batch: int) -> float:
    """What the matrix products of a forward pass take at the speed the machine multiplies at."""
    nodes, hidden, width = worker.facts["data"], worker.facts["hidden"], CHANNELS**2
    blocks = (2 + 2 * MLP_RATIO) * width  # query, projection, MLP of every target
    products = (
        (LAYERS + 1) * hidden * blocks + nodes * blocks  # encoder and processor; decoder
        + (LAYERS + 1) * hidden * 2 * width + nodes * 2 * width  # keys and values: processor, mappers
    )  # fmt: skip
    if worker.facts["processor"] == "transformer":
        products += LAYERS * 2 * hidden**2 * CHANNELS
    return 2 * batch * products / worker.ask("product", batch)["rate"]


def parser_of(description: str) -> argparse.ArgumentParser:
    """The options both benchmarks have."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", help="a Python that has anemoi-models beside us (default: ours alone)")
    parser.add_argument("--repeats", type=int, default=9, help="timed runs of each (default: 9)")
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count(), help="of each process (default: all cores)"
    )
    parser.add_argument("--processors", nargs="+", choices=PROCESSORS, default=PROCESSORS)
    return parser


def workers_of(arguments: argparse.Namespace, processor: str, stack: ExitStack) -> list[Worker]:
    """Ours, ours in plain torch and the peer: processes that end with the stack."""
    peer = [("anemoi", arguments.peer, ())] if arguments.peer else []
    kinds = [("ours", sys.executable, ()), ("ours plain", sys.executable, ("--plain",)), *peer]
    return [
        stack.enter_context(Worker(name, python, processor, arguments.threads, *options))
        for name, python, options in kinds
    ]


def table(rows: list[list[str]]) -> str:
    """A Markdown table; the first row is its head."""
    rows = [rows[0], ["---"] + ["---:"] * (len(rows[0]) - 1), *rows[1:]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in rows
    )


def machine(threads: int) -> str:
    """What was measured where and when."""
    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    model = names[0] if names else platform.processor()
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{date.today()}, {model}, {os.cpu_count()} cores, {threads} threads each, {versions}"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def load_loops() -> None:
    """Import Numba and its engine (44 MB), which else the first network call would do."""
    from diffusion_lab.acceleration.kernels import loops, rows

    loops.run(rows.gelu, 1, torch.zeros(1, 1), torch.zeros(1), torch.zeros(1, 1))


def our_network(processor: str, plain: bool) -> tuple[nn.Module, Callable, Callable]:
    """Our model, its denoiser D(x, y, σ) and its sampler."""
    from diffusion_lab.acceleration import accelerate
    from diffusion_lab.models import Architecture, DiffusionModelEncProcDec
    from diffusion_lab.samplers import heun, sample
    from diffusion_lab.schedules import karras

    architecture = Architecture(
        multistep_input=STATES,
        num_channels=CHANNELS,
        num_layers=LAYERS,
        num_heads=HEADS,
        mlp_ratio=MLP_RATIO,
        noise_cond_dim=CONDITION,
        trainable_size=OUR_TRAINABLE,
        processor=processor,
    )
    model = DiffusionModelEncProcDec(_graph(), VARIABLES, VARIABLES, VARIABLES, architecture)
    if not plain:
        accelerate(model)
        load_loops()

    def sampled(x: Tensor, y: Tensor) -> Tensor:
        levels = karras(STEPS, 100.0, 0.02)
        return sample(heun, model.denoiser(x), 100.0 * y.double(), levels)

    return model, model, sampled


def anemoi_network(processor: str) -> tuple[nn.Module, Callable, Callable]:
    """The peer's model without its default checkpointing (its config key for that is ignored)."""
    from anemoi.models.data_indices.collection import IndexCollection
    from anemoi.models.models import AnemoiDiffusionModelEncProcDec
    from anemoi.models.samplers.diffusion_samplers import EDMHeunSampler, KarrasScheduler
    from omegaconf import OmegaConf
    from torch_geometric.data import HeteroData

    ours, graph = _graph(), HeteroData()
    for nodes in ("data", "hidden"):
        graph[nodes].x, graph[nodes].num_nodes = ours[nodes].x, ours[nodes].num_nodes
    for kind in ours.edge_types:
        graph[kind].edge_index = ours[kind].edge_index
        graph[kind].edge_length, graph[kind].edge_dirs = ours[kind].edge_attr.split([1, 2], dim=1)
    names = {f"variable {i}": i for i in range(VARIABLES)}
    model = AnemoiDiffusionModelEncProcDec(
        model_config=_anemoi_config(processor),
        data_indices={"data": IndexCollection(OmegaConf.create({"forcing": [], "diagnostic": []}), names)},
        statistics={"data": None},
        graph_data=graph,
    )
    for module in model.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = False

    def denoiser(x: Tensor, y: Tensor, sigma: Tensor) -> Tensor:
        return model.fwd_with_preconditioning({"data": x}, {"data": y}, {"data": sigma})["data"]

    def sampled(x: Tensor, y: Tensor) -> Tensor:
        levels = KarrasScheduler(sigma_max=100.0, sigma_min=0.02, num_steps=STEPS, rho=7.0).get_schedule()
        x, y = x.transpose(0, 2), y.transpose(0, 2)  # members go into the batch
        start = {"data": 100.0 * y}
        levels = torch.cat([levels, levels.new_zeros(1)])
        return EDMHeunSampler().sample({"data": x}, start, levels, model.fwd_with_preconditioning)["data"]

    return model, denoiser, sampled


def _graph() -> object:
    """2,048 data nodes on the cells of the example store, 642 hidden nodes."""
    import numpy as np

    from diffusion_lab.graphs import multi_scale

    latitudes = np.repeat(90 - 180 / 32 * (np.arange(32) + 0.5), 64)
    return multi_scale(latitudes, np.tile(360 / 64 * np.arange(64), 32), refinement=3)


def _anemoi_config(processor: str) -> object:
    """The guide's config, of our sizes."""
    from anemoi.utils.config import DotDict

    norm = {
        "_target_": "anemoi.models.layers.normalization.ConditionalLayerNorm",
        "normalized_shape": CHANNELS,
        "condition_shape": CONDITION,
        "zero_init": True,
        "autocast": False,
    }
    kernels = {
        "LayerNorm": norm,
        "Linear": {"_target_": "torch.nn.Linear"},
        "Activation": {"_target_": "torch.nn.GELU"},
    }
    block = {
        "num_chunks": 1,
        "mlp_hidden_ratio": MLP_RATIO,
        "num_heads": HEADS,
        "qk_norm": True,
        "layer_kernels": kernels,
    }
    edges = {
        "trainable_size": TRAINABLE,
        "sub_graph_edge_attributes": ["edge_length", "edge_dirs"],
        "graph_attention_backend": "pyg",
    }
    stack = {
        "graphtransformer": {"_target_": "anemoi.models.layers.processor.GraphTransformerProcessor", **edges},
        "transformer": {
            "_target_": "anemoi.models.layers.processor.TransformerProcessor",
            "attention_implementation": "scaled_dot_product_attention",
            "sub_graph_edge_attributes": edges["sub_graph_edge_attributes"],
        },
    }
    mapper = "anemoi.models.layers.mapper.GraphTransformer{}Mapper"
    diffusion = {
        "sigma_data": 1.0,
        "noise_channels": 32,
        "noise_cond_dim": CONDITION,
        "sigma_max": 100.0,
        "sigma_min": 0.02,
        "rho": 7.0,
        "noise_embedder": {
            "_target_": "anemoi.models.layers.diffusion.SinusoidalEmbeddings",
            "num_channels": 32,
            "max_period": 1000,
        },
        "inference_defaults": {},
    }
    return DotDict(
        {
            "training": {"multistep_input": STATES, "multistep_output": 1},
            "model": {
                "num_channels": CHANNELS,
                "trainable_parameters": {"data": TRAINABLE, "hidden": TRAINABLE},
                "residual": {"_target_": "anemoi.models.layers.residual.SkipConnection", "step": -1},
                "bounding": [],
                "encoder": {"_target_": mapper.format("Forward"), **block, **edges},
                "decoder": {"_target_": mapper.format("Backward"), **block, **edges},
                "processor": {"num_layers": LAYERS, **block, **stack[processor]},
                "model": {"hidden_nodes_name": "hidden", "latent_skip": True, "diffusion": diffusion},
            },
        }
    )


def serve(library: str, processor: str, threads: int, plain: bool) -> None:
    """Build a network, say what it is, and answer requests until the standard input ends."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    # Whatever a library imports late is not memory of the training step.
    network = our_network(processor, plain) if library == "ours" else anemoi_network(processor)
    model, denoiser, sampled = network
    imported = _peak_megabytes()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    answers = sys.stdout
    sys.stdout = sys.stderr  # what libraries print is no answer

    def answer(**values: object) -> None:
        print(json.dumps(values), file=answers, flush=True)

    answer(
        parameters=sum(p.numel() for p in model.parameters()),
        processor=processor,
        data=len(_graph()["data"].x),
        hidden=len(_graph()["hidden"].x),
        version=importlib.metadata.version({"ours": "diffusion-lab", "anemoi": "anemoi-models"}[library]),
    )
    for line in sys.stdin:
        what, batch = json.loads(line)
        if what == "product":
            answer(rate=_product_rate(library, plain))
            continue
        task = {"forward": _forward, "train": _train, "sample": _sample}[what]
        prepared = task(model, denoiser, sampled, batch)
        wall, cpu = time.perf_counter(), time.process_time()
        prepared()
        answer(
            wall=time.perf_counter() - wall,
            cpu=time.process_time() - cpu,
            megabytes=_peak_megabytes() - imported,
        )


def _forward(model: nn.Module, denoiser: Callable, sampled: Callable, batch: int) -> Callable[[], object]:
    x, y, sigma = _inputs(batch)
    model.eval()
    return torch.inference_mode()(lambda: denoiser(x, y, sigma))


def _train(model: nn.Module, denoiser: Callable, sampled: Callable, batch: int) -> Callable[[], object]:
    x, y, sigma = _inputs(batch)
    model.train().zero_grad()
    return lambda: denoiser(x, y, sigma).square().mean().backward()


def _sample(model: nn.Module, denoiser: Callable, sampled: Callable, members: int) -> Callable[[], object]:
    x, y, _ = _inputs(members)
    model.eval()
    return torch.inference_mode()(lambda: sampled(x.transpose(0, 2), y.transpose(0, 2)))


def _inputs(batch: int) -> tuple[Tensor, Tensor, Tensor]:
    cells = 2048
    x, y = torch.randn(batch, STATES, 1, cells, VARIABLES), torch.randn(batch, 1, 1, cells, VARIABLES)
    return x, y, torch.rand(batch, 1, 1, 1, 1) * 3 + 0.1


def _product_rate(library: str, plain: bool) -> float:
    """Arithmetic per second of the MLP's products on the hidden nodes of a sample: the median of some."""
    if library == "ours" and not plain:
        from diffusion_lab.acceleration.products import multiply as product
    else:
        product = torch.mm
    rows, weight, seconds = torch.randn(642, CHANNELS), torch.randn(MLP_RATIO * CHANNELS, CHANNELS), []
    for _ in range(15):
        begin = time.perf_counter()
        product(rows, weight.T)
        seconds.append(time.perf_counter() - begin)
    return 2 * len(rows) * weight.numel() / statistics.median(seconds)


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]), "--plain" in sys.argv)
