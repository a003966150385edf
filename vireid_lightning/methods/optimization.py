"""Optimiser and learning-rate schedule, defined in epochs, as every method's constructor takes them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn

from vireid_lightning.errors import VIReIDError, did_you_mean
from vireid_lightning.kinds import check_kinds, require_settings
from vireid_lightning.modules.backbone import Backbone


@dataclass(frozen=True)
class Optimization:
    """How a method is optimised. The learning rate of epoch ``e`` (from 0) is ``lr * factor(e)``.

    Attributes:
        optimizer: Optimiser: ``adam`` (weight decay added to the gradient), ``adamw`` or ``sgd``.
        lr: Base learning rate.
        weight_decay: Weight decay of all trainable parameters.
        momentum: Momentum of ``sgd``.
        nesterov: Whether the momentum of ``sgd`` is Nesterov's.
        lr_factors: Learning-rate factors by the prefix of a parameter's name; the longest prefix that matches counts,
            and a parameter that matches none has the factor 1.
        layer_decay: Factor on the learning rate of each layer of the backbone relative to the layer behind it; 1 is one
            rate for all. A layer is a stage, of a vision transformer a block; neck and classifiers have the whole rate
            (Bao et al., ICLR 2022; 0.65 to 0.9 for pretrained transformers).
        schedule: Learning-rate schedule: ``constant``, ``multistep`` (times ``gamma`` at each milestone) or ``cosine``
            (to 0 at the end of the run, which ``max_epochs`` or ``max_steps`` of the trainer say).
        milestones: Epochs from which the rate is multiplied by ``gamma``, counted from 0.
        gamma: Factor on the learning rate at each milestone.
        warmup_epochs: Number of epochs of linear warm-up: epoch e runs at (e + 1) / warmup_epochs of the rate.
        images_per_pass: Images of a batch that go through the backbone at a time, for a batch that memory does not
            hold; the losses are still those of the whole batch, and each image goes through twice. Batch normalisation
            takes the statistics of each pass. null takes all at once.
        gradient_checkpointing: Whether a step keeps only the maps between the backbone's stages and computes what is
            within them a second time in backward: less memory, same results.
        compile: Whether the backbone is compiled for training (torch.compile).
    """

    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = 3.5e-4
    weight_decay: float = 5e-4
    momentum: float = 0.9
    nesterov: bool = True
    lr_factors: dict[str, float] = field(default_factory=dict)
    layer_decay: float = 1.0
    schedule: Literal["constant", "multistep", "cosine"] = "multistep"
    milestones: list[int] = field(default_factory=list)
    gamma: float = 0.1
    warmup_epochs: int = 0
    images_per_pass: int | None = None
    gradient_checkpointing: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        check_kinds(vars(self), type(self), "optimization.")
        if not 0 < self.lr < math.inf:
            raise VIReIDError(f"optimization.lr is {self.lr}; give a learning rate above 0.")
        if list(self.milestones) != sorted(self.milestones) or any(epoch < 0 for epoch in self.milestones):
            raise VIReIDError(f"optimization.milestones are {self.milestones}; list the epochs from 0 in rising order.")
        ranges = {
            "weight_decay": (0 <= self.weight_decay < math.inf, "0 or more"),
            "momentum": (0 <= self.momentum < 1, "0 or more, and below 1"),
            "layer_decay": (0 < self.layer_decay <= 1, "a factor above 0 and up to 1"),
            "gamma": (0 < self.gamma < math.inf, "a factor above 0"),
            "warmup_epochs": (self.warmup_epochs >= 0, "0 or more"),
            "images_per_pass": (self.images_per_pass is None or self.images_per_pass >= 2, "at least 2, or null"),
            "lr_factors": (all(0 <= factor < math.inf for factor in self.lr_factors.values()), "factors of 0 or more"),
        }
        for name, (is_right, wanted) in ranges.items():
            if not is_right:
                raise VIReIDError(f"optimization.{name} is {getattr(self, name)}; give {wanted}.")
        if self.optimizer == "sgd" and self.nesterov and not self.momentum:
            raise VIReIDError("optimization.momentum is 0, without which there is no nesterov; set nesterov to false.")
        if self.compile and (self.gradient_checkpointing or self.images_per_pass is not None):
            raise VIReIDError(
                "optimization.compile goes neither with gradient_checkpointing nor with images_per_pass, which call "
                "the backbone again in backward; leave compile out, or both of these."
            )

    @classmethod
    def of(cls, value: Optimization | dict[str, Any]) -> Optimization:
        """Return ``value`` itself, or the settings that a checkpoint holds as a dictionary."""
        return value if isinstance(value, Optimization) else cls(**require_settings(cls, value, "optimization"))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that a checkpoint may hold."""
        return asdict(self)

    def factor(self, epoch: int, max_epochs: int) -> float:
        """Return the learning rate of an epoch (from 0), relative to the base rate.

        Example:
            >>> Optimization(warmup_epochs=10, milestones=[20, 50]).factor(4, max_epochs=80)
            0.5
        """
        if epoch < self.warmup_epochs:
            return (epoch + 1) / self.warmup_epochs
        if self.schedule == "cosine":
            span = max(max_epochs - self.warmup_epochs, 1)
            return 0.5 * (1.0 + math.cos(math.pi * min((epoch - self.warmup_epochs) / span, 1.0)))
        if self.schedule == "multistep":
            return self.gamma ** sum(epoch >= milestone for milestone in self.milestones)
        return 1.0

    def parameter_groups(
        self, named_parameters: Iterable[tuple[str, nn.Parameter]], decays: Mapping[str, float] | None = None
    ) -> list[dict[str, Any]]:
        """Return one optimiser group for each learning-rate factor in use.

        Args:
            named_parameters: Names and parameters.
            decays: Further factors by name, see :meth:`layer_decays`.

        Raises:
            VIReIDError: If a prefix of ``lr_factors`` is the start of no parameter's name.
        """
        named = list(named_parameters)
        trainable = [(name, parameter) for name, parameter in named if parameter.requires_grad]
        for prefix in self.lr_factors:
            if not any(name.startswith(prefix) for name, _ in named):  # frozen ones may be trained later
                roots = {name.split(".")[0] for name, _ in trainable}
                raise VIReIDError(
                    f"optimization.lr_factors names '{prefix}', with which no parameter begins; "
                    f"parameters begin with {', '.join(sorted(roots))}.{did_you_mean(prefix, roots)}"
                )
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in trainable:
            prefixes = [prefix for prefix in self.lr_factors if name.startswith(prefix)]
            factor = self.lr_factors[max(prefixes, key=len)] if prefixes else 1.0
            groups.setdefault(factor * (decays or {}).get(name, 1.0), []).append(parameter)
        return [{"params": parameters, "lr": self.lr * factor} for factor, parameters in sorted(groups.items())]

    def count_epochs(self, trainer: Trainer, steps_per_epoch: float) -> int:
        """Return the number of epochs, begun ones included, that the trainer's limits allow.

        Args:
            trainer: The trainer that trains.
            steps_per_epoch: Number of batches in an epoch.

        Raises:
            VIReIDError: If the schedule ends with the run, and the limits do not say when that is.
        """
        limit = trainer.limit_train_batches
        batches = min(steps_per_epoch, limit) if isinstance(limit, int) else int(steps_per_epoch * limit)
        limits = [trainer.max_epochs] if trainer.max_epochs is not None and trainer.max_epochs >= 0 else []
        if trainer.max_steps >= 0 and math.isfinite(steps_per_epoch):
            updates = math.ceil(max(batches, 1) / trainer.accumulate_grad_batches)
            limits.append(math.ceil(trainer.max_steps / updates))
        if not limits and self.schedule == "cosine":
            raise VIReIDError(
                "optimization.schedule cosine falls to 0 at the end of the run, which trainer.max_time alone does not "
                "tell; set trainer.max_epochs or trainer.max_steps as well, or choose another schedule."
            )
        return max(min(limits, default=1), 1)

    def layer_decays(self, module: nn.Module) -> dict[str, float]:
        """Return the factors of ``layer_decay`` by the names of a module's parameters; 1 where a name is missing."""
        if self.layer_decay == 1:
            return {}
        decays = {}
        for prefix, part in module.named_modules():
            if isinstance(part, Backbone):
                numbers, count = part.layer_numbers()
                decays.update({f"{prefix}.{name}": self.layer_decay ** (count - n) for name, n in numbers.items()})
        return decays

    def set_up(self, module: nn.Module) -> None:
        """Have the backbones of a module run as ``images_per_pass``, ``gradient_checkpointing`` and ``compile`` say."""
        for part in module.modules():
            if isinstance(part, Backbone):
                part.images_per_pass = self.images_per_pass
                part.recomputes_parts = self.gradient_checkpointing
                if self.compile:
                    part.compile()

    def build(self, module: nn.Module, max_epochs: int) -> OptimizerLRSchedulerConfig:
        """Return what ``configure_optimizers`` returns: the optimiser and its per-epoch schedule."""
        groups = self.parameter_groups(module.named_parameters(), self.layer_decays(module))
        devices = {parameter.device.type for group in groups for parameter in group["params"]}
        fused = True if devices <= {"cpu", "cuda"} else None  # one kernel for all parameters
        optimizer: torch.optim.Optimizer
        if self.optimizer == "sgd":
            optimizer = torch.optim.SGD(
                groups,
                lr=self.lr,
                momentum=self.momentum,
                nesterov=self.nesterov,
                weight_decay=self.weight_decay,
                fused=fused,
            )
        else:
            kind = torch.optim.Adam if self.optimizer == "adam" else torch.optim.AdamW
            optimizer = kind(groups, lr=self.lr, weight_decay=self.weight_decay, fused=fused)
        # The scaler of 16-mixed then divides gradients itself, before the step, so that the trainer can clip them.
        optimizer._step_supports_amp_scaling = False
        scheduler = EpochSchedule(optimizer, lambda epoch: self.factor(epoch, max_epochs))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "epoch"}}


class EpochSchedule(torch.optim.lr_scheduler.LambdaLR):
    """Torch's schedule by a function of the epoch, which leaves parameter groups alone that are added in training.

    Whoever adds them, as Lightning's BackboneFinetuning does, sets their rates.
    """

    def get_lr(self) -> list[Any]:
        """Return the rate of each parameter group."""
        rates = [base * factor(self.last_epoch) for base, factor in zip(self.base_lrs, self.lr_lambdas)]
        return [*rates, *(group["lr"] for group in self.optimizer.param_groups[len(rates) :])]
