"""The training tasks: one corrupted target a step, and ensembles sampled for validation."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from diffusion_lab.models import DiffusionModelEncProcDec, DiffusionTendModelEncProcDec
from diffusion_lab.noise import MemberNoise
from diffusion_lab.objectives import DiffusionObjective, MSELoss
from diffusion_lab.sampling import PRESETS, SamplingSettings
from diffusion_lab.training.distributed import gather
from diffusion_lab.verification.ensemble import area_means, baseline_means, ensemble_scores


class GraphForecaster(LightningModule):
    """Trains a `DiffusionModelEncProcDec` by denoising score matching.

    All randomness of a sample follows from (seed, step, place in the step): a run that was cut and resumed
    makes the same draws, and so does one on several devices.

    Args:
        model: the network.
        objective: noise levels, corruption, weights.
        loss: weighted squared error.
        output_names: names of the output variables, for the logs.
        output_stdev: (output variable,) their standard deviations: logged scores are in physical units.
        learning_rate: peak of AdamW's learning rate.
        weight_decay: AdamW's, on weight matrices only.
        warmup_steps: steps of linear warm-up; a cosine down to 0 follows until the last step.
        settings: how validation samples.
        validation_members: ensemble size in validation, at least 2.
        seed: of noise levels and noise.
    """

    output_stdev: Tensor

    def __init__(
        self,
        model: DiffusionModelEncProcDec,
        objective: DiffusionObjective,
        loss: MSELoss,
        output_names: Sequence[str],
        output_stdev: Tensor,
        *,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        warmup_steps: int = 100,
        settings: SamplingSettings | None = None,
        validation_members: int = 8,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.model, self.objective, self.loss = model, objective, loss
        self.output_names = tuple(output_names)
        self.register_buffer("output_stdev", torch.as_tensor(output_stdev).float(), persistent=False)
        self.learning_rate, self.weight_decay, self.warmup_steps = learning_rate, weight_decay, warmup_steps
        self.settings = settings or PRESETS["guide"].override({"num_steps": 10})
        self.validation_members, self.seed = validation_members, seed
        self._validation: list[dict[str, Tensor]] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """One step on x (batch, time, ensemble, grid, input) and state (batch, 1, ensemble, grid, output).

        Returns:
            "loss", and per sample and member "sample_loss" and "sigma" for the noise-level bins.
        """
        x, state = batch
        target = self.model.to_target(state, x[:, -1:])
        y, sigma = self.objective.corrupt(target, self._generators(len(x)))
        weights = self.objective.pre_loss_weights(sigma)
        sample_loss = self.loss.per_sample(self.model(x, y, sigma), target, weights)
        loss = sample_loss.mean()
        self.log("train/loss", loss, prog_bar=True, batch_size=len(x), sync_dist=True)
        return {"loss": loss, "sample_loss": sample_loss.detach(), "sigma": sigma.flatten(1)}

    def _generators(self, batch: int) -> list[torch.Generator]:
        """One for each sample of this step, keyed by its place among the samples of all devices.

        On the CPU: the same noise on every device.
        """
        first = self.global_rank * batch
        keys = (f"{self.seed} {self.global_step} {first + i}" for i in range(batch))
        digests = (hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys)
        return [torch.Generator().manual_seed(int.from_bytes(digest, "little")) for digest in digests]

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Sample an ensemble for one start and keep its area means, beside persistence's."""
        x, state = batch
        truth, reference = state[:, 0, 0], x[:, -1:, :1]
        noise = MemberNoise(self.seed, self.objective.field).at(
            start=batch_idx * self.trainer.world_size + self.global_rank,
            lead=1,
            members=range(self.validation_members),
            shape=(state.shape[1], *state.shape[3:]),
        )
        target = self.settings.sample(self.model.denoiser(x[:, :, :1]), lambda draw: noise(draw).to(x))
        forecast = self.model.to_state(target, reference)[:, 0]
        weights = self.loss.node_weights
        means = area_means(forecast, truth, weights)
        n = self.model.num_prognostic
        persistence = baseline_means(reference[:, 0, 0, :, :n], truth[..., :n], weights)
        means |= {f"persistence_{name}": value for name, value in persistence.items()}
        self._validation.append({name: value.cpu() for name, value in means.items()})

    def on_validation_epoch_end(self) -> None:
        """Log fair CRPS, RMSE, spread-skill and the ratios to persistence, per variable."""
        cases = gather(self._validation, self.trainer.world_size)
        means = {name: torch.cat([case[name] for case in cases]).mean(0).to(self.device) for name in cases[0]}
        self._validation.clear()
        scores = ensemble_scores(means, self.validation_members)
        n = self.model.num_prognostic
        crps_ratio = scores["fair_crps"][:n] / means["persistence_absolute_error"]
        rmse_ratio = scores["rmse"][:n] / means["persistence_squared_error"].sqrt()
        for i, name in enumerate(self.output_names):
            self.log(f"val/{name}/fair_crps", scores["fair_crps"][i] * self.output_stdev[i], sync_dist=True)
            self.log(f"val/{name}/rmse", scores["rmse"][i] * self.output_stdev[i], sync_dist=True)
            self.log(f"val/{name}/spread_skill", scores["spread_skill"][i], sync_dist=True)
            if i < n:
                self.log(f"val/{name}/crps_over_persistence", crps_ratio[i], sync_dist=True)
                self.log(f"val/{name}/rmse_over_persistence", rmse_ratio[i], sync_dist=True)
        self.log("val/crps_over_persistence", crps_ratio.mean(), prog_bar=True, sync_dist=True)
        self.log("val/spread_skill", scores["spread_skill"].mean(), prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with linear warm-up, then a cosine to 0 at the trainer's last step."""
        groups = decay_groups(self.model, self.weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=self.learning_rate, betas=(0.9, 0.95))
        factor = partial(warmup_cosine, warmup=self.warmup_steps, last=self.trainer.max_steps)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class GraphTendForecaster(GraphForecaster):
    """Trains a `DiffusionTendModelEncProcDec`: the target is the normalised tendency.

    Arguments as `GraphForecaster`.

    Raises:
        TypeError: the model predicts states.
    """

    def __init__(
        self,
        model: DiffusionTendModelEncProcDec,
        objective: DiffusionObjective,
        loss: MSELoss,
        output_names: Sequence[str],
        output_stdev: Tensor,
        **options: Any,
    ) -> None:
        if not isinstance(model, DiffusionTendModelEncProcDec):
            raise TypeError(
                f"GraphTendForecaster trains a DiffusionTendModelEncProcDec, got {type(model).__name__}; "
                "use GraphForecaster for a model of states"
            )
        super().__init__(model, objective, loss, output_names, output_stdev, **options)


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for AdamW: weight matrices decay, others have no scale to decay towards 0 from."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]  # biases, norms
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def warmup_cosine(step: int, warmup: int, last: int) -> float:
    """The learning rate's factor at a step: a linear warm-up, then a cosine to 0 at step `last`."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * min((step - warmup) / max(last - warmup, 1), 1.0)))
