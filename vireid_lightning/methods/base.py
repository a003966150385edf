"""The base of every method: what they share, and nothing that one of them owns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, get_args

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from vireid_lightning.data.datamodule import CrossModalityDataModule
from vireid_lightning.data.samplers.choice import BatchKind
from vireid_lightning.data.training_data import TrainingData
from vireid_lightning.errors import VIReIDError, did_you_mean
from vireid_lightning.host_memory import keep_freed_memory
from vireid_lightning.kinds import check_kinds
from vireid_lightning.methods.arguments import argument_names, check_numbers, document_arguments, plain_backbone
from vireid_lightning.methods.checkpoint import BLOCK, describe_run, hand_on
from vireid_lightning.methods.checkpoint_io import use_durable_checkpoints
from vireid_lightning.methods.finite_check import FiniteCheck
from vireid_lightning.methods.global_batch import GlobalBatch
from vireid_lightning.methods.optimization import Optimization
from vireid_lightning.methods.progress import settle_epoch
from vireid_lightning.methods.resuming import check_resumed, list_changes
from vireid_lightning.methods.step_kind import StepKind
from vireid_lightning.methods.training_record import describe_training, name_weights
from vireid_lightning.modules import Backbone, Encoder, Encoding, encode
from vireid_lightning.printable import make_printable
from vireid_lightning.types import Batch

#: More identities than this are no training set, and their classifier would only fill the memory.
_MOST_IDENTITIES = 10**7


class ReIDModule(GlobalBatch, ABC):
    """A method of visible-infrared person re-identification.

    A subclass's constructor takes keyword-only arguments with the paper's values as defaults, calls this one first,
    and then builds its networks. It implements :meth:`embed` and :meth:`losses`, and gives the weights of its losses as
    ``loss_weights``. What it needs to know of its data it takes from :meth:`prepare`. Its checkpoints rebuild it
    without a config: see :mod:`vireid_lightning.methods.checkpoint`.

    Attributes:
        batches: The training batches that the method asks for: ``identity``, ``modality`` (no identity is read) or
            ``pseudo_label`` (the method labels its images itself, see :mod:`vireid_lightning.methods.pseudo_labels`).
        heads: Prefixes of the state dict's names that belong to the training identities or to the method's own
            objective and are never handed on to another model.
        training_arguments: Constructor arguments that shape no network: a resumed run takes them from its config, all
            others from the checkpoint.
        loss_weights: Weight of each term of :meth:`losses` by its name; a term that is missing weighs 1.
        training_data: What :meth:`prepare` was told; None before training and where there is no datamodule.
        kept: Tensors that :meth:`losses` kept of the last training step, see :meth:`keep`.
    """

    batches: ClassVar[BatchKind] = "identity"
    heads: ClassVar[tuple[str, ...]] = ()
    training_arguments: ClassVar[tuple[str, ...]] = ("optimization", "gather")

    @property
    def resumes_within_epochs(self) -> bool:
        """Whether a run that was stopped within an epoch can go on there; if not, it begins the epoch anew.

        A method with pseudo labels makes them, and what hangs on them, at the start of an epoch.
        """
        return self.batches != "pseudo_label"

    backbone: Backbone
    pool: nn.Module
    neck: nn.Module

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Check what the class says of its batches, and document the arguments that all methods share."""
        super().__init_subclass__(**arguments)
        for former in ("uses_identities", "labels_images"):
            if former in vars(cls):
                raise VIReIDError(
                    f"{cls.__name__} sets {former}, which is no longer read; set batches to one of "
                    f"{', '.join(get_args(BatchKind))} instead."
                )
        if cls.batches not in get_args(BatchKind):
            raise VIReIDError(
                f"{cls.__name__}.batches is {cls.batches!r}; set it to one of {', '.join(get_args(BatchKind))}."
            )
        document_arguments(cls)

    def __init__(
        self,
        *,
        num_classes: int | None,
        optimization: Optimization | dict[str, Any],
        init_from: str | None = None,
        gather: bool = True,
    ) -> None:
        super().__init__()
        check_kinds({"num_classes": num_classes}, ReIDModule.__init__)
        if num_classes is not None and num_classes < 2:
            raise VIReIDError(f"num_classes is {num_classes}; training needs at least 2 identities.")
        if num_classes is not None and num_classes > _MOST_IDENTITIES:
            raise VIReIDError(f"num_classes is {num_classes}; give at most {_MOST_IDENTITIES:,}.")
        self.num_classes = num_classes
        self.optimization = Optimization.of(optimization)
        # Collects the arguments of the subclass's constructor, which is still running, and of this one, of which it may
        # lack some. Values stay plain, so that a checkpoint loads with weights_only=True.
        missing = {"num_classes", "init_from", "gather"} - set(argument_names(type(self)))
        self.save_hyperparameters(ignore=["optimization", *missing])
        self.save_hyperparameters({"optimization": self.optimization.to_dict(), **plain_backbone(self.hparams)})
        check_kinds(self.hparams, type(self).__init__)
        check_numbers(self.hparams)
        self.loss_weights: Mapping[str, float] = {}
        self.training_data: TrainingData | None = None
        self.kept: dict[str, Tensor] = {}
        self.gathers = gather
        self._init_from = init_from
        self._loaded_training: Mapping[str, Any] | None = None
        self._in_step = False
        self._finite = FiniteCheck()
        self._step = 0
        self._length: dict[str, int | None] = {}

    @abstractmethod
    def embed(self, images: Tensor, modality: Tensor) -> Tensor:
        """Return the retrieval embedding of a batch, the one that every score and search uses.

        Args:
            images: (B, 3, H, W) float, normalised.
            modality: (B,) int64, 0 visible, 1 infrared.

        Returns:
            (B, D) float32. Meant for eval mode.
        """

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the unweighted loss terms of a training batch by name, in the order in which they are logged.

        It needs no Trainer and changes nothing in the module but the running statistics of its normalisations.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement losses(batch), so it cannot be trained.")

    def list_overlays(self, images: Tensor, modality: Tensor) -> dict[str, Tensor]:
        """Return maps to lay over images, by the name of what they show, for `vireid overlays`.

        A method that finds regions, such as body parts, returns how much each pixel belongs to each of them; here there
        are none. Meant for eval mode, without gradients.

        Args:
            images: (B, 3, H, W) float, normalised.
            modality: (B,) int64, 0 visible, 1 infrared.

        Returns:
            Tensors (B, K, height, width) from 0 to 1, of any height and width: K maps that are shown side by side.
        """
        return {}

    def prepare(self, data: TrainingData) -> None:
        """Take what the method needs to know of its data, and refuse what does not fit.

        Called once before training, ahead of ``init_from``, where a :class:`CrossModalityDataModule` trains.
        """

    def forward(self, images: Tensor, modality: Tensor) -> Tensor:
        """Return :meth:`embed`."""
        return self.embed(images, modality)

    def adopt(self, encoder: Encoder) -> None:
        """Take over an encoder's parts as ``backbone``, ``pool`` and ``neck``, the names that checkpoints have."""
        self.backbone, self.pool, self.neck = encoder.backbone, encoder.pool, encoder.neck

    def encode(self, images: Tensor, modality: Tensor) -> Encoding:
        """Return maps, pooled features and the neck's output of images (B, 3, H, W), by the encoder's parts."""
        return encode(self.backbone, self.pool, self.neck, images, modality)

    def require_classes(self) -> int:
        """Return the number of training identities, or say how to give it."""
        if self.num_classes is None:
            raise VIReIDError(
                f"{type(self).__name__} was built without num_classes and has no classifiers to train; build it with "
                "num_classes=datamodule.num_identities."
            )
        return self.num_classes

    def step_kinds(self, clusters: int) -> dict[str, StepKind]:
        """Return the kinds of training steps by name, empty where there is one only, for measuring them without data.

        Args:
            clusters: Number of clusters, where the method labels its images itself.
        """
        return {"": StepKind()}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the weighted sum of :meth:`losses`."""
        self._step, self._in_step, self.kept = batch_idx, True, {}
        self._check_processes(len(batch["identity"]))
        try:
            terms = self.losses(batch)
        finally:
            self._in_step = False
        self._remark_on_gathering()
        return self.combine(terms, self.loss_weights, batch)

    def keep(self, **tensors: Tensor) -> None:
        """Hand tensors on from :meth:`losses` to ``on_train_batch_end``, where they are in ``kept``, detached.

        Outside of a training step nothing is kept.
        """
        if self._in_step:
            # A tensor without gradient stays itself, with what is noted of its values.
            self.kept.update(
                {name: tensor.detach() if tensor.requires_grad else tensor for name, tensor in tensors.items()}
            )

    def combine(self, terms: Mapping[str, Tensor], weights: Mapping[str, float], batch: Batch) -> Tensor:
        """Log each loss term, check it, and return the weighted sum.

        ``train/<term>`` is the mean over an epoch and all processes, ``step/<term>`` the value of a single step.

        Args:
            terms: Scalars, unweighted, in the order in which they are logged.
            weights: Weight of a term by name; 1 where a name is missing.
            batch: The batch that the terms come from; the error names its images.

        Raises:
            VIReIDError: If a term is not finite; names the step, the terms and the batch's images. On a GPU it comes
                with the next step, or before weights are scored or saved.
        """
        self._check_terms(terms, weights)
        loss = torch.stack([weights.get(name, 1.0) * term.float() for name, term in terms.items()]).sum()
        if loss.is_cuda:
            self._settle()
        self._finite.note(terms, loss, batch.get("index"), step=self.global_step, epoch=self.current_epoch)
        if not loss.is_cuda:  # where nothing waits, the error comes before the weights move
            self._settle()
        size = len(batch["identity"])
        self.log("loss", loss.detach(), prog_bar=True, logger=False, batch_size=size)
        values = {f"train/{name}": term.detach().float() for name, term in terms.items()}
        values["train/loss"] = loss.detach()
        self.log_dict(values, on_step=False, on_epoch=True, sync_dist=True, batch_size=size)
        # Every `log_every_n_steps`, of the first process: waiting for the others at each step would cost time.
        steps = {name.replace("train/", "step/", 1): value for name, value in values.items()}
        self.log_dict(steps, on_step=True, on_epoch=False, batch_size=size)
        return loss

    def _settle(self) -> None:
        """Raise where the last step's loss was not finite."""
        self._finite.settle(self._name_images)

    def _name_images(self, index: list[int]) -> list[str]:
        data = self.training_data
        return [f"#{each}" for each in index] if data is None else list(data.paths(index))

    def on_validation_start(self) -> None:
        """Refuse to score the weights of a step whose loss was not finite."""
        self._settle()

    def on_train_end(self) -> None:
        """Check the last step's loss."""
        self._settle()

    def _check_terms(self, terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> None:
        name = type(self).__name__
        if not isinstance(terms, Mapping) or not terms:
            raise VIReIDError(f"{name}.losses returned {terms!r}; return a dictionary from names to scalar tensors.")
        wrong = [key for key, term in terms.items() if not isinstance(term, Tensor) or term.ndim]
        if wrong:
            raise VIReIDError(f"{name}.losses returned a '{wrong[0]}' that is no scalar tensor; average it first.")
        unknown = [key for key, weight in weights.items() if weight and key not in terms]
        if unknown:
            raise VIReIDError(
                f"{name}.loss_weights weighs '{unknown[0]}', which losses does not return, only {', '.join(terms)}."
                f"{did_you_mean(unknown[0], terms)}"
            )

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return the batch's embeddings and its samples' positions in the split; a callback scores them."""
        return {"embedding": self.embed(batch["image"], batch["modality"]).float(), "index": batch["index"]}

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return what :meth:`validation_step` returns."""
        return self.validation_step(batch, batch_idx)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return what :meth:`validation_step` returns."""
        return self.validation_step(batch, batch_idx)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimiser and the schedule of ``optimization``."""
        if self.training_data is None:  # plain loaders
            self.trainer.fit_loop.setup_data()
            steps = self.trainer.fit_loop.max_batches
        else:
            steps = self.training_data.steps_per_epoch
        return self.optimization.build(self, self.optimization.count_epochs(self.trainer, steps))

    def setup(self, stage: str) -> None:
        """Prepare for training; start from ``init_from``, once, unless the run's weights come from a checkpoint."""
        use_durable_checkpoints(self.trainer)
        if self.trainer.strategy.root_device.type == "cpu":
            keep_freed_memory()
        super().setup(stage)
        if stage == "fit":
            # Now: a callback that averages weights adds an epoch of its own.
            self._length = {"max_epochs": self.trainer.max_epochs, "max_steps": self.trainer.max_steps}
            self._prepare_for_training()
            self.optimization.set_up(self)
        if self._init_from is not None and self.trainer.ckpt_path is None:
            self.print(make_printable(self.start_from(self._init_from)))
        self._init_from = None

    def on_fit_start(self) -> None:
        """Train what the optimiser holds: a resumed run's callback may have unfrozen it before the run was stopped."""
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.requires_grad_(True)

    def start_from(self, path: str) -> str:
        """Start the encoder from a checkpoint of any method; return one line that says what was and was not loaded."""
        return hand_on(path, self, heads=self.heads)

    @classmethod
    def upgrade_arguments(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return today's constructor arguments for those that a checkpoint of an older version holds."""
        return arguments

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds method, preprocessing, identity map and dataset trial without the config.

        Raises:
            VIReIDError: If the loss of the last step was not finite: such weights are not saved.
        """
        self._settle()
        if self._is_fitting():
            settle_epoch(checkpoint, steps=self.trainer.num_training_batches, within_epochs=self.resumes_within_epochs)
        self._describe(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the loaded weights: ``init_from`` has done its part in the run that wrote them.

        Raises:
            VIReIDError: If training goes on from it and it comes from another run, see
                :mod:`vireid_lightning.methods.resuming`.
        """
        self._init_from = None
        loaded = checkpoint.get(BLOCK, {}).get("training") or {}
        if self._is_fitting():
            now = {key: checkpoint[key] for key in ("epoch", "global_step")}
            self._describe(now)
            path, fixed = self.trainer.ckpt_path, set(self.training_arguments) - {"optimization"}
            arguments = {name: value for name, value in self.hparams.items() if name not in fixed}
            check_resumed(path, checkpoint, now[BLOCK], arguments)
            if changed := list_changes(loaded, now[BLOCK].get("training") or {}):
                listed = ", ".join(f"{name} {before} -> {after}" for name, (before, after) in changed.items())
                self.print(f"The run goes on with changes, which its checkpoints note: {make_printable(listed)}.")
                place = {"epoch": checkpoint["epoch"], "step": checkpoint["global_step"]}
                loaded = {**loaded, "resumed": [*loaded.get("resumed", []), {**place, "changed": changed}]}
        elif checkpoint.pop("current_model_state", None) is not None:
            # A callback that averages weights would put those of the last step in place of the ones that the file says
            # are the model's.
            checkpoint.pop("averaging_state", None)
        self._loaded_training = loaded

    def _is_fitting(self) -> bool:
        return self._trainer is not None and self.trainer.state.fn == "fit"

    def _describe(self, checkpoint: dict[str, Any]) -> None:
        arguments = dict(self.hparams)
        datamodule = self._find_datamodule()
        training = self._record_training(checkpoint, arguments, datamodule)
        describe_run(checkpoint, type(self).__name__, arguments, datamodule, training, type(self).__module__)

    def _record_training(
        self, checkpoint: Mapping[str, Any], arguments: Mapping[str, Any], datamodule: CrossModalityDataModule | None
    ) -> Mapping[str, Any] | None:
        """Return how the weights were trained: by this run, or by that of the checkpoint that was loaded."""
        loaded = self._loaded_training
        if datamodule is None or not self._is_fitting():
            return loaded
        # The arguments of a run that goes on are those of the checkpoint, which no longer say where it began.
        weights = name_weights(arguments) if loaded is None else loaded.get("weights")
        seed = None if self.training_data is None else self.training_data.seed
        record = describe_training(
            self.trainer,
            checkpoint,
            datamodule,
            batches=self.batches,
            seed=seed,
            weights=weights,
            length=self._length,
        )
        return record | ({"resumed": loaded["resumed"]} if loaded and "resumed" in loaded else {})

    def _find_datamodule(self) -> CrossModalityDataModule | None:
        # Lightning sets a trainer's attribute without declaring it.
        datamodule = getattr(self._trainer, "datamodule", None)
        return datamodule if isinstance(datamodule, CrossModalityDataModule) else None

    def _prepare_for_training(self) -> None:
        own = type(self)
        if own.losses is ReIDModule.losses and own.training_step is ReIDModule.training_step:
            raise VIReIDError(f"{own.__name__} has no losses to train with; implement losses(batch).")
        classes = self.require_classes() if self.batches == "identity" else None
        datamodule = self._find_datamodule()
        if datamodule is None:
            if self.batches == "pseudo_label":
                raise VIReIDError(
                    f"{type(self).__name__} draws batches by its own pseudo labels; train it with a "
                    "CrossModalityDataModule."
                )
            return
        self.training_data = datamodule.training_data()
        if classes is not None and classes < self.training_data.num_identities:
            raise VIReIDError(
                f"num_classes is {classes}, but the training set has {self.training_data.num_identities} identities; "
                "leave num_classes out of the config, or set it to at least that number."
            )
        for part in self.modules():
            if isinstance(part, Backbone):
                part.fit(self.training_data.image_size)
        self.prepare(self.training_data)


document_arguments(ReIDModule)
