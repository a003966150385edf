"""Short trainings of every method in several processes, for comparison with one process."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torch.multiprocessing
import torch.nn.functional as F
from lightning.pytorch import Callback, Trainer
from references.batches import training_batch
from references.fake_dataset import FakeDataset
from timm.layers import BatchNormAct2d
from torch import nn
from torch.utils.data import DataLoader

from vireid_lightning.data import CrossModalityDataModule, Source
from vireid_lightning.errors import VIReIDError
from vireid_lightning.losses import batch_hard_triplet_loss
from vireid_lightning.methods import AGW, CMAM, MMGL, Baseline, DCLNet, MPANet, Optimization, SourceStage, TargetStage
from vireid_lightning.metrics import engine
from vireid_lightning.metrics.retrieval_metric import RetrievalMetric
from vireid_lightning.metrics.sharing import Share
from vireid_lightning.modules.synced_batch_norm import BatchNormSync
from vireid_lightning.protocols import Protocol, Trial
from vireid_lightning.types import Sample

SIZE = (64, 32)
STEPS = 3
QUIET = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
}

#: Constructor arguments of each method, for tiny networks and images.
METHODS = {
    Baseline: {"num_classes": 6},
    AGW: {"num_classes": 6},
    DCLNet: {"num_classes": 6, "parts": 2},
    MPANet: {"num_classes": 6, "parts": 2},
    MMGL: {"stripes": 2, "part_dimension": 16, "optimization": Optimization(optimizer="sgd", lr=0.1)},
    CMAM: {
        "source": SourceStage(
            steps=STEPS, kl_weights=(0.1,), warmup_steps=1, constant_steps=2, clustering="kmeans", clusters=4
        ),
        "target": TargetStage(dbscan_steps=0, kmeans_steps=STEPS, warmup_steps=1, clusters=4),
    },
}


class DoubleData(CrossModalityDataModule):
    """Images in float64, where sums in another order stay within 1e-10 of each other."""

    def on_after_batch_transfer(self, batch, dataloader_idx):
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        return {**batch, "image": batch["image"].double()}


class Recorder(Callback):
    """Freezes batch normalisation where it is told to, and notes the averaged gradients of each step."""

    def __init__(self, frozen: bool) -> None:
        self.frozen = frozen
        self.gradients: list[dict[str, torch.Tensor]] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        for module in pl_module.modules() if self.frozen else ():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.gradients.append({name: p.grad.clone() for name, p in pl_module.named_parameters() if p.grad is not None})


class Terms:
    """Stands in for a method's ``losses`` and notes each term that it returns."""

    def __init__(self, module) -> None:
        self.losses, self.seen = module.losses, []

    def __call__(self, batch):
        terms = self.losses(batch)
        self.seen.append({name: term.detach().double() for name, term in terms.items()})
        return terms


def shift_weights(module, seed: int) -> None:
    """Multiply each weight by 1 + 2^-20 or 1 - 2^-20, at random: by about what a forward pass in float32 rounds."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            up = torch.rand(parameter.shape, generator=generator) < 0.5
            parameter.mul_(torch.where(up, 1 + 2**-20, 1 - 2**-20))


def train(
    method,
    root: Path,
    processes: int,
    *,
    norm: str,
    dtype: torch.dtype = torch.float64,
    shift: int | None = None,
    **arguments,
):
    """Train a method for three steps of each of its phases; return terms, gradients and weights.

    Args:
        method: The class of the method.
        root: Folder of the images.
        processes: Number of processes, of which this is one.
        norm: ``eval`` for frozen statistics of batch normalisation, ``sync`` for those of all processes.
        dtype: Of weights and images.
        shift: Seed of :func:`shift_weights`, applied before training; None for the weights as they are.
        arguments: Of the method's constructor.
    """
    torch.manual_seed(0)
    module = method(**{"backbone": "test_resnet", "pretrained": False, **METHODS[method], **arguments}).to(dtype)
    if shift is not None:
        shift_weights(module, shift)
    terms = module.losses = Terms(module)
    recorder = Recorder(frozen=norm == "eval")
    trainer = Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        sync_batchnorm=norm == "sync",
        max_epochs=2 if method is CMAM else 1,
        callbacks=[recorder],
        limit_val_batches=0,
        **QUIET,
    )
    dataset = FakeDataset(root)
    source = Source(dataset, identities_per_batch=4, images_per_identity=2) if method is CMAM else None
    data = (DoubleData if dtype is torch.float64 else CrossModalityDataModule)(
        dataset,
        image_size=SIZE,
        identities_per_batch=4,
        images_per_modality=2,
        steps_per_epoch=STEPS,
        num_workers=0,
        source=source,
        seed=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, datamodule=data)
    layers = {type(child) for child in module.modules()}
    return {"terms": terms.seen, "gradients": recorder.gradients, "weights": dict(module.state_dict()), "types": layers}


class Own(Baseline):
    """A method of a user, whose losses know nothing of processes."""

    def losses(self, batch):
        _, pooled, z = self.encode(batch["image"], batch["modality"])
        identity = F.cross_entropy(self.classifier(z), batch["identity"])
        return {"identity": identity, "triplet": batch_hard_triplet_loss(pooled, batch["identity"])}


def complain(rank: int) -> list[str]:
    """Return what each of two processes is told of methods that do not gather and of batches of different sizes."""
    said = []
    for method, gather, images in ((Own, True, 2), (Own, False, 2), (Baseline, True, 1 + rank)):
        module = method(num_classes=3, backbone="test_resnet", pretrained=False, gather=gather)
        trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", max_steps=2, **QUIET)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                trainer.fit(module, DataLoader([training_batch(images_per_modality=images)] * 2, batch_size=None))
            except VIReIDError as error:
                said.append(str(error))
        said += [str(warning.message) for warning in caught if "self.gather" in str(warning.message)]
    return said


def normalise(processes: int, rank: int):
    """Run three kinds of synchronised batch normalisation on uneven shares of a batch; return what comes out."""
    results = []
    for norm, shape in NORMS:
        x, layer, weight = norm_inputs(norm, shape)
        net = nn.Sequential(layer)
        sync = BatchNormSync(torch.device("cpu"))
        if processes > 1:
            sync.apply(net)
        first, last = (len(x) * part // (2 * processes) for part in (max(2 * rank - 1, 0), 2 * rank + 1))
        own = slice(first, len(x) if rank == processes - 1 else last)
        x = x[own].requires_grad_()
        for _ in range(2):  # the running statistics move twice
            output = net(x)
        loss = (output * weight[own]).square().sum()
        loss.backward()
        sync.revert(net)
        assert net[0] is layer
        state = {name: value.clone() for name, value in net.state_dict().items()}
        evaluated = net.eval()(x).detach() if layer.track_running_stats else None
        gradients = [p.grad for p in net.parameters() if p.grad is not None]
        results.append((output.detach(), x.grad, gradients, state, evaluated))
    return results


#: A layer and the shape of its input; timm's activates within, and a layer may have no scale, or average all steps.
NORMS = [
    (lambda: nn.BatchNorm2d(3), (12, 3, 4, 5)),
    (lambda: nn.BatchNorm1d(5, momentum=None), (12, 5)),
    (lambda: nn.BatchNorm1d(5, affine=False, track_running_stats=False), (12, 5)),
    (lambda: BatchNormAct2d(3, inplace=False), (12, 3, 2, 2)),
]


def norm_inputs(norm, shape):
    """Return an input far from zero, a layer with random parameters, and weights of the output, in float64."""
    torch.manual_seed(1)
    layer = norm().double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, mean=1.0)
    return 100 + torch.randn(shape, dtype=torch.float64), layer, torch.randn(shape, dtype=torch.float64)


def rank_queries() -> list[dict]:
    """Score images of 40 people, re-ranked too, by a metric that each process gives its part of the embeddings."""
    share, generator = Share.of_group(), torch.Generator().manual_seed(3)
    samples = [Sample(f"{i}-{n}.jpg", i, n % 2, 1 + n % 4) for i in range(40) for n in range(24)]
    positions = [np.array([p for p, sample in enumerate(samples) if sample.modality == m]) for m in (0, 1)]
    protocols = [
        Protocol("a", (Trial(positions[1], positions[0]), Trial(positions[1], positions[0][::2])), removal="sysu"),
        Protocol("b", (Trial(positions[0], positions[1]),), cmc="identity"),
    ]
    embeddings = torch.randn(len(samples), 16, generator=generator).round(decimals=1)  # with ties
    metric = RetrievalMetric(samples, protocols, rerank=True)
    own = torch.arange(share.rank, len(samples), share.processes)
    metric.update(embeddings[own], own)
    with mock.patch.object(engine, "_QUERIES_AT_ONCE", 100):  # several blocks to deal
        table = metric.compute()
    return [{**row.to_dict(), "first": [trial.first for trial in row.trials]} for row in table]


def run_cases(rank: int, processes: int, folder: Path, cases, others: bool) -> None:
    """Train every case as one of several processes, and write what came out to ``<processes>-<rank>.pt``.

    Args:
        rank: Number of the process.
        processes: Number of processes.
        folder: Where results are written and the processes meet.
        cases: Arguments of :func:`train` by a name.
        others: Whether layers, rankings and messages are tried as well.
    """
    torch.set_num_threads(1)
    if processes > 1:
        os.environ |= {"NODE_RANK": "0", "LOCAL_RANK": str(rank)}
        store = f"file://{folder}/store-{processes}"
        torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=processes)
    results = {name: train(processes=processes, **case) for name, case in cases.items()}
    if others:
        results |= {"norms": normalise(processes, rank), "scores": rank_queries()}
    if others and processes == 2:
        results["said"] = complain(rank)
    torch.save(results, folder / f"{processes}-{rank}.pt")
    if processes > 1:
        torch.distributed.destroy_process_group()


def run_in_processes(folder: Path, cases, *, others: bool = False):
    """Run :func:`run_cases` in 1, 2 and 4 processes; return the results by (processes, rank).

    Args:
        folder: An empty folder.
        cases: A function from a number of processes to the arguments of :func:`train` by a name.
        others: Whether layers, rankings and messages are tried as well.
    """
    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vireid_lightning.methods", "timm", "sklearn.cluster", "albumentations"])
    for processes in (1, 2, 4):
        started = [
            context.Process(target=run_cases, args=(rank, processes, folder, cases(processes), others))
            for rank in range(processes)
        ]
        for process in started:
            process.start()
        for process in started:
            process.join(250)
            if process.exitcode is None:
                process.kill()
        assert [process.exitcode for process in started] == [0] * processes
    names = [(processes, rank) for processes in (1, 2, 4) for rank in range(processes)]
    return {name: torch.load(folder / f"{name[0]}-{name[1]}.pt", weights_only=False) for name in names}
