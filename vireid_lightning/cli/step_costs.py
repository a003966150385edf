"""What a training step of each method costs beside its bare backbone."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from vireid_lightning.cli.device_waits import DeviceWaits
from vireid_lightning.methods import ReIDModule
from vireid_lightning.methods.step_kind import StepKind
from vireid_lightning.modules import Backbone
from vireid_lightning.types import Batch, note_values

#: Autocast types by the names of the command line; float32 runs without autocast.
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}

# The least time of each operator counts. Where a process keeps what it frees, the profiler's own memory takes room
# between the tensors', and in any one step some operators wait for new pages.
_PROFILED_STEPS = 3


class BareBackbone(nn.Module):
    """The one-stream backbone and the mean of its last map: what every method's step contains.

    Args:
        name: Name of the backbone.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.backbone = Backbone(name, pretrained=False)

    def training_step(self, batch: Batch, number: int) -> Tensor:
        """Return the mean of the last map."""
        last: Tensor = self.backbone.features(batch["image"], batch["modality"])[-1]
        return last.float().mean()


@dataclass
class StepTime:
    """Time of one training step in seconds, by the clock and of the processor, its optimiser apart.

    Attributes:
        seconds: Losses and backward.
        optimizer: The optimiser's step.
        cpu_seconds: Losses and backward, processor time of all threads.
        cpu_optimizer: The optimiser's step, processor time of all threads.
    """

    seconds: float
    optimizer: float
    cpu_seconds: float
    cpu_optimizer: float

    def whole(self, *, cpu: bool = False) -> float:
        """Return the time of both parts."""
        return self.cpu_seconds + self.cpu_optimizer if cpu else self.seconds + self.optimizer

    def times(self, kind: StepKind, *, cpu: bool = False) -> float:
        """Return what as many passes and optimisers as a kind of step has would take."""
        both = (self.cpu_seconds, self.cpu_optimizer) if cpu else (self.seconds, self.optimizer)
        return kind.passes * both[0] + kind.networks * both[1]


@dataclass
class Subject:
    """A kind of training step that is measured.

    Attributes:
        name: Its name in the table.
        module: The module whose steps are taken.
        kind: What the step contains.
        make_optimizer: Makes an optimiser of the module's parameters.
        times: Time of each measured step, all subjects' in the same order.
        mib: Largest sum of what a step allocates for tensors, in MiB, less what there was before it.
        waits: How often a step waits for the device, and where.
        operators: Seconds of each of PyTorch's operators in a step, the least of several profiled ones, without those
            that it calls; on a GPU the device's time.
    """

    name: str
    module: Any
    kind: StepKind
    make_optimizer: Callable[[], torch.optim.Optimizer]
    optimizer: torch.optim.Optimizer | None = None
    times: list[StepTime] = field(default_factory=list)
    mib: float = 0.0
    waits: dict[str, int] = field(default_factory=dict)
    operators: dict[str, float] = field(default_factory=dict)

    def median(self, *, cpu: bool = False) -> float:
        """Return the median time of a step in seconds."""
        return statistics.median(each.whole(cpu=cpu) for each in self.times)

    def beyond(self, bare: Subject) -> dict[str, float]:
        """Return what each operator takes beyond as many bare passes, in seconds, the largest difference first."""
        names = self.operators.keys() | bare.operators.keys()
        differences = {
            name: self.operators.get(name, 0.0) - self.kind.passes * bare.operators.get(name, 0.0) for name in names
        }
        return dict(sorted(differences.items(), key=lambda item: (-abs(item[1]), item[0])))

    def ratio(self, bare: Subject, *, cpu: bool = False) -> float:
        """Return the median, over rounds, of the step's time to that of as many bare ones in the same round."""
        pairs = zip(self.times, bare.times, strict=True)
        return statistics.median(own.whole(cpu=cpu) / other.times(self.kind, cpu=cpu) for own, other in pairs)


def make_subjects(modules: Iterable[BareBackbone | ReIDModule], clusters: int, device: torch.device) -> list[Subject]:
    """Return the kinds of steps of some modules, the bare backbone's being one of them.

    Args:
        modules: The modules, which are moved to the device.
        clusters: Number of clusters, where a module labels its images itself.
        device: Where they run.
    """
    subjects = []
    for module in modules:
        module.to(device).train()
        kinds, name = {"": StepKind()}, "bare backbone"
        if isinstance(module, ReIDModule):
            kinds, name = module.step_kinds(clusters), type(module).__name__
        for kind, step in kinds.items():
            make = partial(_make_adam, module)
            subjects.append(Subject(f"{name}, {kind}" if kind else name, module, step, make))
    return subjects


def _make_adam(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam([each for each in module.parameters() if each.requires_grad], lr=1e-6, fused=True)


def draw_batch(size: tuple[int, int], identities: int, images_per_modality: int, device: torch.device) -> Batch:
    """Return a batch of noise as the identity sampler orders one: visible images first, the i-th of each half alike."""
    generator = torch.Generator().manual_seed(0)
    half = torch.arange(identities).repeat_interleave(images_per_modality)
    count = 2 * len(half)
    batch = {
        "image": torch.randn(count, 3, *size, generator=generator),
        "identity": half.repeat(2),
        "modality": torch.arange(2).repeat_interleave(len(half)),
        "camera": torch.full((count,), -1),
        "index": torch.arange(count),
        "erased": torch.zeros(count, *size, dtype=torch.bool),
    }
    moved: Any = {name: value.to(device) for name, value in batch.items()}
    result: Batch = moved
    for name in ("identity", "modality"):  # as the datamodule does
        note_values(moved[name], batch[name].tolist())
    return result


def take_step(subject: Subject, batch: Batch, dtype: torch.dtype | None, waits: DeviceWaits | None = None) -> StepTime:
    """Take one training step as a Trainer does: the method's hooks, losses, backward and the optimiser.

    Args:
        subject: What takes it.
        batch: Its batch.
        dtype: Autocast type; None runs without.
        waits: Counts waits, if given, in everything but the optimiser, whose counters lie on the CPU wherever it runs.
    """
    module, device = subject.module, batch["image"].device
    optimizer = subject.optimizer = subject.optimizer or subject.make_optimizer()
    marks = [_read_clocks(device)]
    watched = nullcontext() if waits is None else waits
    with watched:
        if isinstance(module, ReIDModule):
            module.on_train_batch_start(batch, 0)
        with torch.autocast(device.type, dtype=dtype) if dtype is not None else nullcontext():
            loss = module.training_step(batch, 0)
        optimizer.zero_grad()
        loss.backward()
    marks.append(_read_clocks(device))
    optimizer.step()
    marks.append(_read_clocks(device))
    if isinstance(module, ReIDModule):
        with watched:
            module.on_train_batch_end(loss, batch, 0)
    marks.append(_read_clocks(device))
    (losses, cpu_losses), (stepping, cpu_stepping), (ending, cpu_ending) = (
        (after[0] - before[0], after[1] - before[1]) for before, after in pairwise(marks)
    )
    return StepTime(losses + ending, stepping, cpu_losses + cpu_ending, cpu_stepping)


def measure(subjects: Sequence[Subject], batch: Batch, precision: str, *, rounds: int, warmup: int) -> None:
    """Let all subjects take turns, and note the time of each step after the warm-up.

    Args:
        subjects: What is measured; earlier figures are replaced.
        batch: The batch that all of them see.
        precision: One of :data:`PRECISIONS`.
        rounds: Number of measured steps of each.
        warmup: Number of steps before.
    """
    dtype = PRECISIONS[precision]
    for subject in subjects:
        subject.times = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning on logging without a Trainer
        for number in range(-warmup, rounds):
            for subject in subjects:
                subject.kind.enter()
                time_taken = take_step(subject, batch, dtype)
                if number >= 0:
                    subject.times.append(time_taken)


def profile_steps(subjects: Sequence[Subject], batch: Batch, precision: str) -> None:
    """Let all subjects take turns once more, and note the memory, the operators and the waits of a step.

    Args:
        subjects: What is inspected, after :func:`measure`; earlier figures are replaced.
        batch: The batch that all of them see.
        precision: One of :data:`PRECISIONS`.
    """
    dtype = PRECISIONS[precision]
    for subject in subjects:
        subject.operators = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        for _ in range(_PROFILED_STEPS):
            for subject in subjects:
                subject.kind.enter()
                _profile_step(subject, batch, dtype)
        for subject in subjects:
            subject.kind.enter()
            waits = DeviceWaits(batch["image"].device)
            take_step(subject, batch, dtype, waits)
            subject.waits = dict(waits.places)


def _read_clocks(device: torch.device) -> tuple[float, float]:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter(), time.process_time()


def _profile_step(subject: Subject, batch: Batch, dtype: torch.dtype | None) -> None:
    """Take a step, and note its memory and the least time of each operator so far."""
    device = batch["image"].device
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
    kinds = [ProfilerActivity.CUDA, ProfilerActivity.CPU] if on_gpu else [ProfilerActivity.CPU]
    with profile(activities=kinds, profile_memory=not on_gpu) as profiled:
        take_step(subject, batch, dtype)
    subject.mib = (torch.cuda.max_memory_allocated(device) - before if on_gpu else find_peak(profiled)) / 2**20
    own = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    # An operator's time on a GPU holds its kernels', which are listed once more by themselves.
    host = torch.autograd.DeviceType.CPU  # type: ignore[attr-defined]  # torch's stubs lack it
    listed = (each for each in profiled.key_averages() if each.device_type == host)
    seconds = {each.key: getattr(each, own) / 1e6 for each in listed}
    known = subject.operators
    subject.operators = known | {name: min(taken, known.get(name, taken)) for name, taken in seconds.items()}


def find_peak(profiled: profile) -> int:
    """Return the largest number of bytes of tensors on the CPU that were allocated and not yet freed.

    Allocations that oneDNN makes for itself within an operator are not among them.

    Args:
        profiled: A finished profile with ``profile_memory``.
    """
    assert profiled.profiler is not None
    assert profiled.profiler.kineto_results is not None
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()  # type: ignore[attr-defined]  # torch's stubs lack it
        peak = max(peak, held)
    return peak
