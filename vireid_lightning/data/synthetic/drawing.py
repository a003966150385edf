"""Drawing the images of a layout plan into a folder, by one process or by several."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import cv2
from filelock import FileLock, Timeout
from tqdm import tqdm

from vireid_lightning.data.datasets.base import DRAWN
from vireid_lightning.data.synthetic.layouts import LayoutPlan, PlannedImage
from vireid_lightning.data.synthetic.layouts.plan import MOST_WORKERS
from vireid_lightning.data.synthetic.renderer import DRAWING_VERSION, PedestrianRenderer
from vireid_lightning.errors import VIReIDError
from vireid_lightning.kinds import check_number

#: Written last: the folder is complete, and was drawn with these settings.
MARKER = DRAWN
_STARTED = "synthetic.partial.json"  # written first: a drawing with the same settings may be continued
_LOCK = ".synthetic.lock"

_CHUNK = 64  # images a process draws before it reports
_IMAGES_PER_PROCESS = 2000  # below, starting another process takes longer than it saves


def write_plan(
    plan: LayoutPlan,
    root: str | Path,
    *,
    seed: int = 0,
    difficulty: float = 0.5,
    image_size: tuple[int, int] = (128, 64),
    likeness: float = 0.0,
    workers: int | None = None,
) -> None:
    """Draw every image of a plan and write its index files.

    The same arguments give the same files, whatever ``workers`` is. A folder that is there already is kept when it was
    drawn with the same arguments, and completed when that was interrupted; any other is refused. A second process that
    draws the same folder waits for the first.

    Args:
        plan: What to write.
        root: An empty or new folder.
        seed: Another seed gives other people, cameras and images.
        difficulty: 0 to 1, see :class:`~vireid_lightning.data.synthetic.renderer.PedestrianRenderer`.
        image_size: Height and width in pixels.
        likeness: 0 to 1, how much the infrared follows the visible brightness, see the renderer.
        workers: Processes that draw; 1 draws in this one. None: as many as there are CPU cores, fewer for few images.
            A script that asks for more than one needs the usual ``if __name__ == "__main__":``.

    Raises:
        VIReIDError: ``root`` holds anything else, or a setting is out of range.
    """
    root = Path(root).expanduser()
    renderer = PedestrianRenderer(seed, difficulty, image_size, likeness)
    settings = {**describe_drawing(renderer), "layout": plan.layout, "plan": _hash_plan(plan)}
    if workers is not None:
        check_number("workers", workers, 1, MOST_WORKERS, whole=True)
    _require_same_drawing(root, settings)
    missing = _list_missing(plan, root)
    if not missing and all((root / path).exists() for path in (MARKER, *plan.index_files)):
        return
    count = workers or min(_count_cores(), 1 + len(missing) // _IMAGES_PER_PROCESS)
    with _start_workers(renderer, root, count) as pool, _lock(root):
        _require_same_drawing(root, settings)  # again: another process may have drawn here meanwhile
        if not (root / MARKER).exists():
            _write_whole(root / _STARTED, json.dumps(settings, indent=1).encode())
        _draw_all(_list_missing(plan, root), f"Drawing {plan.layout} in {root}", pool, renderer, root)
        for path, content in plan.index_files.items():
            if not (root / path).exists():
                _write_whole(root / path, content)
        if not (root / MARKER).exists():
            (root / _STARTED).replace(root / MARKER)


def describe_drawing(renderer: PedestrianRenderer) -> dict[str, object]:
    """Return everything that the pixels of one planned image follow from."""
    return {
        "version": DRAWING_VERSION,
        "seed": renderer.seed,
        "difficulty": float(renderer.difficulty),
        "image_size": list(renderer.image_size),
        # Left out where 0, so that folders that were drawn before there was such a setting are the same drawing.
        **({"likeness": float(renderer.likeness)} if renderer.likeness else {}),
    }


def _hash_plan(plan: LayoutPlan) -> str:
    """Return a hash of everything that a plan writes."""
    digest = hashlib.sha256(plan.layout.encode())
    for image in plan.images:
        fields = (image.path, image.person, image.identity, image.modality, image.camera, image.number)
        digest.update(repr(fields).encode())
    for path in sorted(plan.index_files):
        digest.update(path.encode() + b"\0" + plan.index_files[path] + b"\0")
    return digest.hexdigest()


def _list_missing(plan: LayoutPlan, root: Path) -> list[PlannedImage]:
    """Return the images of a plan that are not drawn yet."""
    return [image for image in plan.images if not (root / image.path).exists()]


def _count_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _require_same_drawing(root: Path, settings: dict[str, object]) -> None:
    """Refuse a folder that holds anything but the same drawing, whole or begun."""
    if not root.exists():
        return
    if not root.is_dir():
        raise VIReIDError(f"{root} is a file; choose another folder for the synthetic dataset.")
    for name in (MARKER, _STARTED):
        if (root / name).exists():
            try:
                found = json.loads((root / name).read_text())
            except ValueError:
                found = None
            if found == settings:
                return
            raise VIReIDError(
                f"{root} holds a synthetic dataset that was drawn with other settings (see {name} there); choose "
                "another folder or delete it."
            )
    if any(path.name != _LOCK for path in root.iterdir()):
        raise VIReIDError(f"{root} is not empty and was not made by this command; choose another folder or delete it.")


@contextmanager
def _lock(root: Path) -> Iterator[None]:
    """Let one process at a time draw in ``root``; the system frees the lock of a process that dies."""
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VIReIDError(f"The folder {root} cannot be made ({error}); choose another.") from error
    lock = FileLock(root / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"Another process is drawing {root}; waiting for it.", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _start_workers(renderer: PedestrianRenderer, root: Path, count: int) -> Iterator[ProcessPoolExecutor | None]:
    """Start the processes that draw, or none for one worker.

    They start before the folder is locked: each imports the main script again, and one that lacks its ``if __name__``
    would construct the same dataset there and wait for the lock for ever.
    """
    if count == 1:
        yield None
        return
    pool = ProcessPoolExecutor(
        count, multiprocessing.get_context("spawn"), initializer=_start_worker, initargs=(renderer, root)
    )
    try:
        pool.submit(os.getpid).result()
        yield pool
    except BrokenProcessPool as error:
        raise VIReIDError(
            f"A process that drew synthetic pedestrians in {root} ended. In a script of your own, put what it does "
            'below `if __name__ == "__main__":`, or draw with workers=1.'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_worker: tuple[PedestrianRenderer, Path]  # of a drawing process, set once when it starts


def _start_worker(renderer: PedestrianRenderer, root: Path) -> None:
    """Keep what a drawing process needs for all its images."""
    global _worker
    _worker = renderer, root


def _draw_in_worker(images: list[PlannedImage]) -> int:
    """Draw images in a drawing process; return their number."""
    return _draw(images, *_worker)


def _draw_all(
    images: list[PlannedImage], what: str, pool: ProcessPoolExecutor | None, renderer: PedestrianRenderer, root: Path
) -> None:
    """Draw images in chunks, by the processes of a pool or in this one, under a progress bar."""
    chunks = [images[first : first + _CHUNK] for first in range(0, len(images), _CHUNK)]
    for folder in {(root / image.path).parent for image in images}:
        folder.mkdir(parents=True, exist_ok=True)
    if pool is None:
        drawn = (_draw(chunk, renderer, root) for chunk in chunks)
    else:
        futures = [pool.submit(_draw_in_worker, chunk) for chunk in chunks]
        drawn = (future.result() for future in as_completed(futures))
    with tqdm(total=len(images), desc=what, unit="image", disable=not images) as bar:
        for count in drawn:
            bar.update(count)


def _draw(images: list[PlannedImage], renderer: PedestrianRenderer, root: Path) -> int:
    """Draw images one after another; return their number."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # sharing out images this small costs more than it saves
    try:
        for image in images:
            _draw_one(image, renderer, root)
    finally:
        cv2.setNumThreads(threads)
    return len(images)


def _draw_one(image: PlannedImage, renderer: PedestrianRenderer, root: Path) -> None:
    """Draw an image and write it in the format of its path's suffix."""
    pixels = renderer.draw(image.person, image.camera, image.modality, image.number)
    quality = renderer.get_jpeg_quality(image.camera, image.modality)
    suffix = Path(image.path).suffix
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == ".jpg" else []
    _, encoded = cv2.imencode(suffix, pixels[..., ::-1], options)
    _write_whole(root / image.path, encoded.tobytes())


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    part.replace(path)
