"""Time and memory of ``evaluate`` against galleries of 10 thousand, 100 thousand and 1 million embeddings.

    python tests/benchmarks/evaluate_scale.py [--queries 10000] [--gallery 10000 100000 1000000] [--values 512]

Embeddings are made once, as .npy files, and memory-mapped. Every gallery size is scored in a process of its own, whose
peak memory is printed: all of it, and without the pages of the memory-mapped file, which the system may drop.
With --command-line the same is scored by `vireid evaluate`, from an .npz file under a Manifest of all images.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from tqdm import tqdm


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--gallery", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--values", type=int, default=512)
    parser.add_argument("--images", type=int, default=50, help="gallery images of an identity")
    parser.add_argument("--cmc", choices=("image", "identity"), default="image")
    parser.add_argument("--block-mb", type=int, default=256)
    parser.add_argument("--command-line", action="store_true", help="score with `vireid evaluate`")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help="write docs/figures/NAME.json, which the pages show")
    arguments = parser.parse_args(words)
    if arguments.folder is not None:
        (score_by_command if arguments.command_line else score)(arguments)
        return
    # Not in the processes that are measured: what it imports would count.
    sys.path[:0] = [str(Path(__file__).resolve().parents[1])]
    from benchmarks.evidence import FIGURES, format_table, name_command, write_table

    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), arguments)
        for size in arguments.gallery:
            options = ["--folder", folder, "--gallery", str(size), "--queries", str(arguments.queries)]
            options += [
                "--cmc",
                arguments.cmc,
                "--images",
                str(arguments.images),
                "--block-mb",
                str(arguments.block_mb),
            ]
            options += ["--command-line"] * arguments.command_line
            done = subprocess.run([sys.executable, __file__, *options], check=True, stdout=subprocess.PIPE, text=True)
            rows[f"{size:,}"] = json.loads(done.stdout.splitlines()[-1])
    table = write_table(
        "evaluate-scale-command" if arguments.command_line else "evaluate-scale",
        command=name_command(__file__, words),
        code=["tests/benchmarks/evaluate_scale.py", "vireid_lightning/metrics"],
        settings={key: value for key, value in vars(arguments).items() if key != "folder"},
        columns=["Gallery", "Seconds", "Microseconds an image", "Peak memory, GiB", "without the mapped file"],
        rows=rows,
        formats=[".1f", ".0f", ".2f", ".2f"],
        count=None,
        folder=FIGURES if arguments.write else None,
    )
    print(format_table(table))


def write(folder: Path, arguments: argparse.Namespace) -> None:
    """Write a gallery of identities with ``--images`` images each, in random order, and queries of its people."""
    draw = np.random.default_rng(0)
    largest, step = max(arguments.gallery), 50_000
    centre = draw.standard_normal((-(-largest // arguments.images), arguments.values), dtype=np.float32)
    gallery = np.lib.format.open_memmap(folder / "gallery.npy", "w+", np.float32, (largest, arguments.values))
    for begin in tqdm(range(0, largest, step), desc="writing embeddings", leave=False):
        identity = np.arange(begin, min(begin + step, largest)) // arguments.images
        noise = draw.standard_normal((len(identity), arguments.values), dtype=np.float32)
        gallery[begin : begin + step] = centre[identity] + 2 * noise
    gallery.flush()
    people = np.arange(arguments.queries) % (min(arguments.gallery) // arguments.images)
    query = centre[people] + 2 * draw.standard_normal((len(people), arguments.values), dtype=np.float32)
    np.savez(folder / "query.npz", embedding=query, identity=people)


def score(arguments: argparse.Namespace) -> None:
    from vireid_lightning.metrics import Embeddings, evaluate

    size = arguments.gallery[0]
    with np.load(arguments.folder / "query.npz") as file:
        query = Embeddings(file["embedding"], file["identity"])
    mapped = np.load(arguments.folder / "gallery.npy", mmap_mode="r")[:size]
    peak = PeakMemory()
    with peak:
        start = time.perf_counter()
        gallery = Embeddings(mapped, np.arange(size) // arguments.images)
        scores = evaluate(query, gallery, cmc=arguments.cmc, block_mb=arguments.block_mb, progress=size > 10**5)
        seconds = time.perf_counter() - start
    assert scores.rank1 > 0
    print_row(size, seconds, peak)


def score_by_command(arguments: argparse.Namespace) -> None:
    from vireid_lightning.cli import vireid

    folder, size = arguments.folder, arguments.gallery[0]
    write_manifest(folder, size, arguments.images)
    words = ["evaluate", str(folder / "all.npz"), "--dataset", "Manifest", "--root", str(folder / "manifest.csv")]
    with PeakMemory() as peak:
        start = time.perf_counter()
        vireid([*words, "--block-mb", str(arguments.block_mb)])
        seconds = time.perf_counter() - start
    print_row(size, seconds, peak)


def print_row(size: int, seconds: float, peak: PeakMemory) -> None:
    """Print a row of the table, for the process that started this one."""
    print(json.dumps([[seconds], [1e6 * seconds / size], [peak.all / 2**20], [peak.own / 2**20]]))


def write_manifest(folder: Path, size: int, images: int) -> None:
    """Write what ``lightning predict`` would write for infrared queries and a visible gallery, and their manifest."""
    with np.load(folder / "query.npz") as file:
        query, people = file["embedding"], file["identity"]
    gallery = np.load(folder / "gallery.npy", mmap_mode="r")[:size]
    rows = np.lib.format.open_memmap(folder / "all.npy", "w+", np.float32, (len(query) + size, query.shape[1]))
    rows[: len(query)], rows[len(query) :] = query, gallery
    identity = np.concatenate([people, np.arange(size) // images])
    modality = np.arange(len(rows)) < len(query)
    paths = [f"{number:07d}.jpg" for number in range(len(rows))]
    with (folder / "manifest.csv").open("w") as file:
        file.write("path,identity,modality,camera,split\n")
        for path, who, infrared in zip(paths, identity.tolist(), modality.tolist()):
            file.write(f"{path},{who},{'infrared,,query' if infrared else 'visible,,gallery'}\n")
    labels = {"identity": identity, "camera": np.full(len(rows), -1), "modality": modality.astype(np.int64)}
    np.savez(folder / "all.npz", embedding=rows, path=np.array(paths), **labels)


class PeakMemory(threading.Thread):
    """Samples this process's resident memory (Linux), in KiB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.all = self.own = 0
        self._stop_it = threading.Event()

    def __enter__(self) -> PeakMemory:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_it.set()
        self.join()

    def run(self) -> None:
        while not self._stop_it.wait(0.05):
            fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
            resident, own = (int(fields[name].split()[0]) for name in ("VmRSS", "RssAnon"))
            self.all, self.own = max(self.all, resident), max(self.own, own)


@pytest.mark.benchmark
def test_curve_is_printed():
    main(["--queries", "500", "--gallery", "1000", "10000"])


if __name__ == "__main__":
    main()
