"""What the supervised methods and their parts are worth, from ImageNet weights, at one budget.

Baseline, AGW, DCLNet and MPANet with the same small network, EfficientNet-Lite0 from the extra ``small-weights``, the
same images, batches and number of steps. Each method has the learning rate, out of ``--rates``, at which its first seed
has the best mAP on the validation persons; test persons choose nothing. Then, at that rate, further seeds and the
method without each of its parts. Scores are of persons that training and choice have not seen (all-search, single-shot,
SYSU-MM01's protocol), in per cent, mean +- standard deviation over seeds of weights and batches. Every run keeps its
loss terms by epoch.

Where a part does not help, ``--reasons`` changes one circumstance at a time, the rate, the steps, the size of the
images or what they show, and runs the method with and without the part again; a table for each method.

Run: python tests/benchmarks/supervised.py [--output runs/supervised]    (all of it: about two hours of 1 core)
     python tests/benchmarks/supervised.py --minutes 60                  (goes on with what is missing for 60 minutes)
     python tests/benchmarks/supervised.py --difficulties 0 --reasons    (three hours more; --methods parts them)
     python tests/benchmarks/supervised.py --table --write               (writes docs/figures/supervised*.json)
     python tests/benchmarks/supervised.py --quick                       (a step of everything: does it run?)
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

from benchmarks import runs as shared
from benchmarks.evidence import format_table, write_table
from benchmarks.runs import Runs
from benchmarks.supervised_variants import AS_ABOVE, METHODS, REASONS, VARIANTS, train

from vireid_lightning.errors import VIReIDError

CODE = (*(f"tests/benchmarks/{name}.py" for name in ("supervised", "supervised_variants")), *shared.CODE)


def method_of(name: str) -> str:
    """Return the method that a row is of: itself, or that of a variant."""
    return VARIANTS[name][0] if name in VARIANTS else name


class Design:
    """Which runs there are, in the order in which they are worth most.

    Args:
        runs: Where runs are kept.
        common: Settings that all runs share.
        rates: Learning rates, of which the validation persons choose each method's.
        seeds: Number of seeds.
        folder: Folder of images, caches and runs.
    """

    def __init__(self, runs: Runs, common: dict[str, Any], rates: list[float], seeds: int, folder: Path) -> None:
        if not rates or (len(rates) > 1 and common["val_identities"] < 2):
            raise VIReIDError(
                f"--rates are {rates} and --val-identities {common['val_identities']}; choosing between rates needs at "
                "least two validation persons, since test persons must choose nothing."
            )
        self.runs, self.common, self.rates, self.seeds, self.folder = runs, common, rates, seeds, folder

    def settings(self, name: str, difficulty: float, rate: float, seed: int, **changes: Any) -> dict[str, Any]:
        return {"name": name, "difficulty": difficulty, "rate": rate, "seed": seed, **self.common, **changes}

    def run(self, name: str, difficulty: float, rate: float, seed: int, **changes: Any) -> dict[str, Any] | None:
        settings = self.settings(name, difficulty, rate, seed, **changes)
        return self.runs.do(f"{name}-{difficulty}-{rate:g}-{seed}", settings, train, folder=self.folder)

    def find(self, name: str, difficulty: float, rate: float, seed: int, **changes: Any) -> dict[str, Any] | None:
        settings = self.settings(name, difficulty, rate, seed, **changes)
        return self.runs.find(f"{name}-{difficulty}-{rate:g}-{seed}", settings)

    def rate(self, method: str, difficulty: float) -> float:
        """Return a method's best rate by the validation persons, among those whose first seed is finished."""
        found = {rate: self.find(method, difficulty, rate, 0) for rate in self.rates}
        scores = {rate: run["val/mAP"] for rate, run in found.items() if run is not None}
        return max(scores, key=lambda rate: scores[rate]) if scores else self.rates[0]

    def do(self, difficulties: list[float]) -> None:
        """Run what is missing."""
        for difficulty in difficulties:
            for rate in self.rates:
                for method in METHODS:
                    self.run(method, difficulty, rate, 0)
            for seed in range(1, self.seeds):
                for method in METHODS:
                    self.run(method, difficulty, self.rate(method, difficulty), seed)
            for seed in range(self.seeds):
                for name, (method, *_) in VARIANTS.items():
                    self.run(name, difficulty, self.rate(method, difficulty), seed)

    def do_reasons(self, difficulty: float, methods: Sequence[str], chosen: Sequence[str]) -> None:
        """Run what is missing of some reasons, one method after the other, all of a seed before the next seed."""
        for method in methods:
            compared = {
                reason: names
                for reason in chosen
                if (names := [name for name in REASONS[reason][1] if method_of(name) == method])
            }
            for rate in self.rates if compared else ():
                self.run(method, difficulty, rate, 0)
            for seed in range(self.seeds):
                for reason, names in compared.items():
                    for name in (method, *names):
                        settings = {"rate": self.rate(method, difficulty), "seed": seed, **REASONS[reason][0]}
                        self.run(name, difficulty, **settings)

    def reason_rows(self, method: str, difficulty: float) -> dict[str, list[list[float]]]:
        """Return Rank-1 and mAP of the whole method and of a variant, and how much more mAP this has, seed by seed."""
        rows, rate = {}, self.rate(method, difficulty)
        for variant in (name for name in VARIANTS if method_of(name) == method):
            for reason, (changes, variants) in REASONS.items():
                if variant not in variants:
                    continue
                pairs = [
                    [
                        self.find(name, difficulty, **{"rate": rate, "seed": seed, **changes})
                        for name in (method, variant)
                    ]
                    for seed in range(self.seeds)
                ]
                if both := [(whole, without) for whole, without in pairs if whole and without]:
                    scores = [[run[score] for run in runs] for score in ("rank1", "mAP") for runs in zip(*both)]
                    rows[f"{variant}, {reason}"] = [*scores, [after - before for before, after in zip(*scores[2:])]]
        return rows

    def rows(self, difficulty: float) -> dict[str, list[list[float]]]:
        """Return Rank-1 and mAP of every seed that is finished, and the rate, by method and variant."""
        done = self.done(difficulty)
        return {name: [[run[score] for run in runs] for score in ("rank1", "mAP")] for name, runs in done.items()}

    def curves(self, difficulty: float) -> dict[str, dict[str, list[float]]]:
        """Return the mean over the seeds of every loss term, unweighted, epoch by epoch."""
        curves = {}
        for name, runs in self.done(difficulty).items():
            terms = [term for term in runs[0]["epochs"][0] if term.startswith("train/")]
            epochs = list(zip(*(run["epochs"] for run in runs)))
            curves[name] = {
                term.removeprefix("train/"): [round(statistics.mean(run[term] for run in same), 4) for same in epochs]
                for term in terms
            }
        return curves

    def done(self, difficulty: float) -> dict[str, list[dict[str, Any]]]:
        """Return the finished runs at each method's rate."""
        done = {}
        for name in (*METHODS, *VARIANTS):
            rate = self.rate(method_of(name), difficulty)
            found = [self.find(name, difficulty, rate, seed) for seed in range(self.seeds)]
            if kept := [run for run in found if run is not None]:
                done[name] = kept
        return done

    def rate_rows(self, difficulty: float) -> dict[str, list[list[float]]]:
        """Return the mAP of the validation persons at each rate."""
        found = {method: [self.find(method, difficulty, rate, 0) for rate in sorted(self.rates)] for method in METHODS}
        return {
            method: [[run["val/mAP"]] if run is not None else [] for run in runs]
            for method, runs in found.items()
            if any(runs)
        }


class Tables:
    """Writes and prints the tables of a design.

    Args:
        design: The runs.
        parser: The command's options.
        options: Their values.
    """

    def __init__(self, design: Design, parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
        self.design, self.parser, self.options = design, parser, options

    def write_scores(self, difficulty: float) -> None:
        """Write and print the tables of scores and of rates."""
        design = self.design
        if not (rows := design.rows(difficulty)):
            return
        name, curves = f"supervised-{difficulty:g}".replace(".", "_"), design.curves(difficulty)
        self._write(name, difficulty, METHODS, columns=["", "Rank-1", "mAP"], rows=rows, curves=curves)
        columns = ["", *(f"mAP at {rate:g}" for rate in sorted(self.options.rates))]
        self._write(f"{name}-rates", difficulty, METHODS, columns=columns, rows=design.rate_rows(difficulty))

    def write_reasons(self, difficulty: float) -> None:
        """Write and print a table for each method of which a changed circumstance has run."""
        columns = ["", "Rank-1 of the whole", "Rank-1", "mAP of the whole", "mAP", "mAP gained"]
        for method in self.options.methods:
            rows = self.design.reason_rows(method, difficulty)
            if all(row.endswith(AS_ABOVE) for row in rows):
                continue
            name = f"supervised-{difficulty:g}-reasons-{method.lower()}".replace(".", "_")
            more = f" --reasons --methods {method}"
            self._write(name, difficulty, [method], more=more, columns=columns, rows=rows)

    def _write(self, name: str, difficulty: float, methods: Iterable[str], *, more: str = "", **content: Any) -> None:
        design, options = self.design, self.options
        without = ("difficulties", "reasons", "methods")
        command = shared.name_settings("tests/benchmarks/supervised.py", self.parser, options, without=without)
        about = {
            "command": f"{command} --difficulties {difficulty:g}{more}",
            "code": CODE,
            "settings": {
                **design.common,
                "difficulty": difficulty,
                "rates": {method: design.rate(method, difficulty) for method in methods},
            },
            "origin": design.runs.take_origin(),
            "folder": shared.find_table_folder(options),
        }
        print(format_table(write_table(name, **about, **content)))


def main(words: list[str] | None = None) -> Design:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared.add_run_options(parser, "runs/supervised")
    parser.add_argument("--difficulties", type=float, nargs="+", default=[0.0, 0.25])
    parser.add_argument("--rates", type=float, nargs="+", default=[3.5e-4, 1e-3, 2e-3, 4e-3, 8e-3])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--identities", type=int, default=100)
    parser.add_argument("--val-identities", type=int, default=30)
    parser.add_argument("--test-identities", type=int, default=80)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batch", type=int, nargs=2, default=[8, 2], help="identities, images of each modality")
    parser.add_argument("--size", type=int, nargs=2, default=[96, 32], help="height and width of the images")
    parser.add_argument("--reasons", nargs="*", choices=REASONS, help="run changed circumstances: these, or all")
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=list(METHODS), help="whose circumstances: these, or all"
    )
    options = parser.parse_args(words)
    if options.quick:
        options.identities, options.val_identities, options.test_identities, options.steps = 8, 2, 2, 1
        options.seeds, options.rates, options.difficulties = 1, options.rates[:1], options.difficulties[:1]
    common = {
        name: getattr(options, name)
        for name in ("identities", "val_identities", "test_identities", "steps", "batch", "size")
    }
    design = Design(Runs(options.output, options.minutes), common, options.rates, options.seeds, options.output)
    if not options.table and options.reasons is None:
        design.do(options.difficulties)
    tables = Tables(design, parser, options)
    for difficulty in options.difficulties:
        if not options.table and options.reasons is not None:
            design.do_reasons(difficulty, options.methods, options.reasons or list(REASONS))
        design.runs.take_origin()
        if options.reasons is None:
            tables.write_scores(difficulty)
        if options.table or options.reasons is not None:
            tables.write_reasons(difficulty)
    return design


@pytest.mark.benchmark
def test_every_method_and_variant_is_scored(tmp_path):
    design = main(["--quick", "--output", str(tmp_path)])
    assert set(design.rows(0.0)) == {*METHODS, *VARIANTS}
    again = main(["--quick", "--output", str(tmp_path), "--reasons", "rate 0.001", "--methods", "MPANet"])
    mine = [name for reason in (AS_ABOVE, "rate 0.001") for name in REASONS[reason][1] if method_of(name) == "MPANet"]
    assert len(again.reason_rows("MPANet", 0.0)) == len(mine)
    assert {path.stem for path in (tmp_path / "tables").glob("*reasons*")} == {"supervised-0-reasons-mpanet"}


def test_rates_are_not_chosen_without_validation_persons(tmp_path):
    with pytest.raises(VIReIDError, match="validation persons"):
        main(["--rates", "1e-3", "1e-4", "--val-identities", "0", "--output", str(tmp_path)])


if __name__ == "__main__":
    main()
