"""Draw synthetic pedestrians in the folder layout of a real dataset, so that everything runs without its images."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from vireid_lightning.cli.numbers import Number, Whole
from vireid_lightning.errors import VIReIDError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vireid_lightning.data.synthetic.layouts import LayoutPlan

#: Layout -> option of this command -> argument of the function that plans the layout.
COUNTS = {
    "sysu_mm01": {
        "identities": "train", "val_identities": "val", "test_identities": "test", "images": "images_per_camera",
    },
    "regdb": {"identities": "identities", "images": "images_per_modality"},
    "llcm": {"identities": "train", "test_identities": "test", "images": "images_per_camera"},
    "sysu_mm02": {"identities": "train", "test_identities": "test", "images": "images_per_camera"},
    "market1501": {"identities": "train", "test_identities": "test", "images": "images_per_camera"},
    "msmt17": {"identities": "train", "test_identities": "test", "images": "images_per_identity"},
    "manifest": {
        "identities": "train", "val_identities": "val", "test_identities": "test", "images": "images_per_camera",
    },
}  # fmt: skip
_OPTIONS = ("identities", "val_identities", "test_identities", "images")
#: Layouts whose index files hold random draws.
_SEEDED = ("sysu_mm01", "regdb", "sysu_mm02")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("root", metavar="ROOT", help="new or empty folder to write into; no file is ever overwritten")
    parser.add_argument(
        "--layout",
        choices=sorted(COUNTS),
        default="sysu_mm01",
        help="dataset whose folders and index files are imitated (default: %(default)s)",
    )
    parser.add_argument(
        "--identities",
        type=Whole(1),
        metavar="N",
        help="number of training identities (regdb: of all identities, half of which are for training)",
    )
    parser.add_argument(
        "--val-identities", type=Whole(0), metavar="N", help="number of validation identities (sysu_mm01, manifest)"
    )
    parser.add_argument(
        "--test-identities", type=Whole(1), metavar="N", help="number of test identities (all layouts but regdb)"
    )
    parser.add_argument(
        "--images",
        type=Whole(1),
        metavar="N",
        help="number of images of each identity in each camera (regdb: in each modality; msmt17: in all)",
    )
    parser.add_argument(
        "--like", metavar="FOLDER",
        help="folder of real index files to take identities and images from: exp of sysu_mm01 or idx of regdb",
    )  # fmt: skip
    parser.add_argument("--seed", type=Whole(0), default=0, help="seed of people and images (default: %(default)s)")
    parser.add_argument(
        "--difficulty", type=Number(0, 1), default=0.5, metavar="0..1",
        help="how strong the cameras' disturbances are and how much the infrared loses (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--likeness", type=Number(0, 1), default=0.0, metavar="0..1",
        help="how much the infrared brightness follows the visible one; at 1 it is equal (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--size",
        type=_read_size,
        default=(128, 64),
        metavar="HEIGHTxWIDTH",
        help="height and width of the images in pixels (default: 128x64)",
    )
    parser.add_argument(
        "--workers",
        type=Whole(1, 1024),
        metavar="N",
        help="number of processes that draw (default: by the number of CPU cores and images)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Plan the layout and draw it."""
    from vireid_lightning.data.synthetic.drawing import write_plan

    plan = make_plan(arguments)
    write_plan(
        plan,
        arguments.root,
        seed=arguments.seed,
        difficulty=arguments.difficulty,
        image_size=arguments.size,
        likeness=arguments.likeness,
        workers=arguments.workers,
    )
    persons = len({image.person for image in plan.images})
    print(f"{arguments.root}: {len(plan.images)} images of {persons} people in the {plan.layout} layout.")


def make_plan(arguments: argparse.Namespace) -> LayoutPlan:
    """Return the plan of what the arguments describe.

    Raises:
        VIReIDError: The layout has no such count, or its counts cannot be taken from index files.
    """
    from vireid_lightning.data.synthetic import layouts

    layout = arguments.layout
    given = {option: getattr(arguments, option) for option in _OPTIONS if getattr(arguments, option) is not None}
    if arguments.like is not None:
        if layout not in ("sysu_mm01", "regdb"):
            raise VIReIDError(f"--like reads the index files of sysu_mm01 and regdb, not of {layout}; give the counts.")
        if given:
            raise VIReIDError(
                f"--like takes every count from {arguments.like}; leave out {', '.join(map(_name_flag, given))}."
            )
        plan_like = layouts.plan_sysu_mm01_like if layout == "sysu_mm01" else layouts.plan_regdb_like
        return plan_like(arguments.like)
    unknown = [option for option in given if option not in COUNTS[layout]]
    if unknown:
        raise VIReIDError(
            f"The {layout} layout has no {', '.join(map(_name_flag, unknown))}; it takes "
            f"{', '.join(map(_name_flag, COUNTS[layout]))}."
        )
    counts = {COUNTS[layout][option]: value for option, value in given.items()}
    if layout in _SEEDED:
        counts["seed"] = arguments.seed
    plan: Callable[..., LayoutPlan] = getattr(layouts, f"plan_{layout}")
    return plan(**counts)


def _name_flag(option: str) -> str:
    """Return how an option is written on the command line."""
    return f"--{option.replace('_', '-')}"


def _read_size(text: str) -> tuple[int, int]:
    """Return the height and width of a text HEIGHTxWIDTH."""
    height, cross, width = text.lower().partition("x")
    if not (cross and height.isdigit() and width.isdigit()):
        raise argparse.ArgumentTypeError(f"'{text}' is no size; give height x width in pixels, such as 128x64")
    return int(height), int(width)
