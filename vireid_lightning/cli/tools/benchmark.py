"""Measure what a training step of each method costs beside its bare backbone, on this machine.

All methods see the same batch of noise, from random weights. Each takes turns with the bare backbone; a ratio is the
median over rounds of a step's time to the bare backbone's in the same round. The bare backbone is one stream and the
mean of its last map. Both sides run forward, backward and Adam. A method that sends the batch through backbones several
times is compared with as many bare passes. With --loop, methods that need no pseudo labels also train under a Trainer,
on synthetic images from the cache.
"""

from __future__ import annotations

import argparse
import gc
import inspect
import json
import platform
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from vireid_lightning.cli.numbers import Whole
from vireid_lightning.errors import VIReIDError, did_you_mean
from vireid_lightning.files import atomic_write
from vireid_lightning.host_memory import hand_back_freed_memory, keep_freed_memory
from vireid_lightning.metrics.terminal import choose_console, make_table


class _Size(NamedTuple):
    """Backbone, image size, identities of a batch, images of each per modality, and classes of the classifiers."""

    backbone: str
    image_size: tuple[int, int]
    identities: int
    images: int
    classes: int


_SIZES = {
    "quick": _Size("resnet10t", (96, 48), 4, 2, 4),
    "paper": _Size("resnet50", (384, 128), 8, 2, 395),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the tool's arguments."""
    parser.add_argument("--methods", nargs="+", help="names of the methods (default: all)")
    parser.add_argument(
        "--size",
        choices=list(_SIZES),
        default="quick",
        help="quick: a small network, 96 x 48, batches of 16; paper: resnet50, 384 x 128, batches of 32, SYSU-MM01's "
        "395 identities (default: %(default)s)",
    )
    parser.add_argument("--backbone", help="a timm network in place of the size's")
    parser.add_argument(
        "--image-size", type=Whole(1, 8192), nargs=2, metavar=("HEIGHT", "WIDTH"), help="in place of the size's"
    )
    parser.add_argument(
        "--batch", type=Whole(8, 65536), help="images of a batch, a multiple of 4, in place of the size's"
    )
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=["float32", "bfloat16"],
        help="default: both, without bfloat16 on a processor that has no instructions for it",
    )
    parser.add_argument(
        "--rounds", type=Whole(1), default=5, help="measured steps of each method (default: %(default)s)"
    )
    parser.add_argument("--warmup", type=Whole(1), default=2, help="steps before them (default: %(default)s)")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is one")
    parser.add_argument(
        "--images-per-pass",
        type=Whole(2),
        help="the methods' batches go through the backbone this many images at a time",
    )
    parser.add_argument("--gradient-checkpointing", action="store_true", help="the methods keep only stages' maps")
    parser.add_argument("--compile", action="store_true", help="the methods' backbones are compiled")
    parser.add_argument("--loop", action="store_true", help="also measure the whole loop, with the real loader")
    parser.add_argument(
        "--workers", type=Whole(0, 1024), default=2, help="processes of the loader (default: %(default)s)"
    )
    parser.add_argument("--places", action="store_true", help="also list what waits for the device, and where")
    parser.add_argument(
        "--profile", action="store_true", help="also list the operators that take more or less than the bare backbone's"
    )
    parser.add_argument("--output", help="also write the figures to this .json file")
    parser.add_argument("--overwrite", action="store_true", help="replace the file to write where it exists")


def run(arguments: argparse.Namespace) -> None:
    """Measure, print a table for each precision, and write the figures.

    Raises:
        VIReIDError: If an argument is out of its range, a method is not known, or the output exists.
    """
    output = None if arguments.output is None else Path(arguments.output).expanduser()
    if output is not None and output.exists() and not arguments.overwrite:
        raise VIReIDError(f"{output} exists; give another --output, or --overwrite.")
    size = _choose_size(arguments)

    import torch

    chosen = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if chosen == "cuda" and not torch.cuda.is_available():
        raise VIReIDError("--device is cuda, but PyTorch finds no GPU; leave it out.")
    methods = _find_methods(arguments.methods)
    if chosen == "cpu":  # as when a method trains
        keep_freed_memory()
    console, results = choose_console(), []
    for precision in arguments.precisions or _choose_precisions(torch.device(chosen)):
        with tempfile.TemporaryDirectory() as folder:
            result = _measure(arguments, methods, size, precision, torch.device(chosen), folder)
        console.print(_tabulate(result))
        for row in result["rows"] if arguments.places else ():
            for place, count in row["waits"].items():
                console.print(f"{row['name']}: {count} {place}", highlight=False)
        for row in result["rows"][1:] if arguments.profile else ():
            console.print(_tabulate_profile(row))
        results.append(result)
    if output is not None:
        machine = torch.cuda.get_device_name() if chosen == "cuda" else f"{torch.get_num_threads()} threads"
        about = {"device": chosen, "machine": machine, "torch": torch.__version__, "python": platform.python_version()}
        with atomic_write(output) as file:
            file.write(json.dumps({**about, "measurements": results}, indent=2).encode())
        print(f"Figures: {output}", file=sys.stderr)


def _choose_precisions(device: Any) -> list[str]:
    """Return both precisions; without bfloat16, and saying so, where a step of it takes some 30 times as long."""
    from vireid_lightning.precision import emulates_bfloat16

    if not emulates_bfloat16(device):
        return ["float32", "bfloat16"]
    print("bfloat16 is left out, since this processor emulates it; --precisions bfloat16 measures it.", file=sys.stderr)
    return ["float32"]


def _choose_size(arguments: argparse.Namespace) -> _Size:
    size = _SIZES[arguments.size]
    if arguments.backbone is not None:
        size = size._replace(backbone=arguments.backbone)
    if arguments.image_size is not None:
        size = size._replace(image_size=tuple(arguments.image_size))
    if arguments.batch is not None:
        if arguments.batch % 4:
            raise VIReIDError(
                f"--batch is {arguments.batch}; give a multiple of 4: 2 images of each identity and modality."
            )
        size = size._replace(identities=arguments.batch // 4, images=2)
    return size._replace(classes=max(size.classes, size.identities))


def _measure(
    arguments: argparse.Namespace, methods: list[Any], size: _Size, precision: str, device: Any, folder: str
) -> dict[str, Any]:
    """Return the figures of one precision as plain values.

    One method after the other takes turns with the bare backbone, and is freed before the next: at the papers' size
    all of them at once need more than 24 GiB.
    """
    from vireid_lightning.cli.step_costs import BareBackbone, draw_batch, make_subjects, measure, profile_steps

    options = {name: getattr(arguments, name) for name in ("images_per_pass", "gradient_checkpointing", "compile")}
    length = {"rounds": arguments.rounds, "warmup": arguments.warmup}
    batch = draw_batch(size.image_size, size.identities, size.images, device)
    backbone, bares, rows = BareBackbone(size.backbone), [], []
    for kind in methods:
        method = _build(kind, size)
        method.optimization = replace(method.optimization, **options)
        method.optimization.set_up(method)
        bare, *subjects = make_subjects([backbone, method], size.classes, device)
        measure([bare, *subjects], batch, precision, **length)
        profile_steps([bare, *subjects], batch, precision)
        bares.append(bare)
        rows += [_describe(subject, bare) for subject in subjects]
        bare.optimizer = None
        backbone.zero_grad()
        del subjects
        if arguments.loop and method.batches != "pseudo_label":
            rows[-1] |= _measure_loop(arguments, method, precision, device, size, batch, folder)
        del method
        gc.collect()  # a Trainer, its method and its loaders refer to each other
        hand_back_freed_memory()
    bares[0].times = [each for bare in bares for each in bare.times]
    about = {"size": arguments.size, "precision": precision, **size._asdict(), **options, **length}
    return {**about, "batch": len(batch["image"]), "rows": [_describe(bares[0], bares[0]), *rows]}


def _describe(subject: Any, bare: Any) -> dict[str, Any]:
    """Return a row of figures."""
    return {
        "name": subject.name,
        "seconds": subject.median(),
        "ratio": subject.ratio(bare),
        "cpu_seconds": subject.median(cpu=True),
        "cpu_ratio": subject.ratio(bare, cpu=True),
        "optimizer_seconds": statistics.median(each.optimizer for each in subject.times),
        "bare_passes": subject.kind.passes,
        "bare_optimizers": subject.kind.networks,
        "memory_mib": subject.mib,
        "memory_ratio": subject.mib / bare.mib,
        "waits": subject.waits,
        "operators": subject.operators,
        "beyond_bare": subject.beyond(bare),
        "bare_profiled_seconds": sum(bare.operators.values()),
        "all_seconds": [each.whole() for each in subject.times],
    }


def _measure_loop(
    arguments: argparse.Namespace, method: Any, precision: str, device: Any, size: _Size, batch: Any, folder: str
) -> dict[str, float]:
    """Return the loop's time and, once more, that of the step alone; the images in the folder serve all methods."""
    from vireid_lightning.cli.loop_costs import time_loop
    from vireid_lightning.cli.step_costs import make_subjects, measure
    from vireid_lightning.data import CrossModalityDataModule, Synthetic

    length = {"rounds": arguments.rounds, "warmup": arguments.warmup}
    dataset = Synthetic(
        folder,
        identities=size.identities,
        val_identities=2,
        test_identities=2,
        images=size.images,
        train="train",
    )
    data = CrossModalityDataModule(
        dataset,
        identities_per_batch=size.identities,
        images_per_modality=size.images,
        image_size=size.image_size,
        steps_per_epoch=arguments.rounds + arguments.warmup + 1,
        num_workers=arguments.workers,
        cache_dir=str(Path(folder) / "cache"),
        seed=0,
    )
    loop = time_loop(method, data, precision, device, **length)
    method.trainer = None
    (again,) = make_subjects([method], size.classes, device)
    measure([again], batch, precision, **length)
    return {
        "loop_seconds": loop,
        "step_beside_loop_seconds": again.median(),
        "loop_ratio": loop / again.median(),
    }


def _find_methods(names: list[str] | None) -> list[Any]:
    from vireid_lightning import methods
    from vireid_lightning.methods import ReIDModule

    exported = (getattr(methods, name) for name in methods.__all__)
    known = {kind.__name__: kind for kind in exported if isinstance(kind, type) and issubclass(kind, ReIDModule)}
    known.pop(ReIDModule.__name__)
    for name in names or ():
        if name not in known:
            raise VIReIDError(f"'{name}' is no method; give some of {', '.join(known)}.{did_you_mean(name, known)}")
    return [known[name] for name in names or known]


def _build(method: Any, size: _Size) -> Any:
    import torch

    torch.manual_seed(0)
    arguments: dict[str, Any] = {"backbone": size.backbone, "pretrained": False}
    if "num_classes" in inspect.signature(method).parameters:
        arguments["num_classes"] = size.classes
    return method(**arguments)


def _tabulate(result: dict[str, Any]) -> Table:
    height, width = result["image_size"]
    title = f"{result['backbone']}, {height} x {width}, batches of {result['batch']}, {result['precision']}"
    caption = (
        f"Medians of {result['rounds']} steps with Adam. A step's ratio is that to as many bare passes, its memory's "
        "to one bare pass: what a step allocates for tensors at most. A loop's ratio is that to the step, measured "
        "right behind it."
    )
    table = make_table(title, caption)
    table.add_column("")
    for head in ("Step, s", "Passes", "Ratio", "CPU ratio", "MiB", "Ratio", "Waits", "Loop, s", "Ratio"):
        table.add_column(head, justify="right")
    for row in result["rows"]:
        cells = [
            _format(row["seconds"], 3),
            str(row["bare_passes"]),
            _format(row["ratio"], 3),
            _format(row["cpu_ratio"], 3),
            _format(row["memory_mib"], 0),
            _format(row["memory_ratio"], 2),
            str(sum(row["waits"].values())),
            _format(row.get("loop_seconds"), 3),
            _format(row.get("loop_ratio"), 3),
        ]
        table.add_row(row["name"], *cells)
    return table


def _tabulate_profile(row: dict[str, Any]) -> Table:
    """Return the operators that tell a step from the bare backbone's: at least 1 in 500 of its time each."""
    whole = row["bare_profiled_seconds"]
    passes = "" if row["bare_passes"] == 1 else f" {row['bare_passes']} passes of"
    title = f"{row['name']}: where it differs from{passes} the bare backbone"
    table = make_table(title, "The least of three profiled steps, without the operators that an operator calls.")
    table.add_column("Operator")
    for head in ("Seconds", "Beyond bare, s", "Of a bare step"):
        table.add_column(head, justify="right")
    for name, seconds in row["beyond_bare"].items():
        if abs(seconds) >= whole / 500:
            share = f"{100 * seconds / whole:+.1f} %"
            table.add_row(name, _format(row["operators"].get(name, 0.0), 3), f"{seconds:+.3f}", share)
    total = sum(row["beyond_bare"].values())
    table.add_row("all", _format(sum(row["operators"].values()), 3), f"{total:+.3f}", f"{100 * total / whole:+.1f} %")
    return table


def _format(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:.{decimals}f}"
