from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from vireid_lightning.data.images import cache as cache_module
from vireid_lightning.data.images.cache import ImageCache
from vireid_lightning.data.images.reading import BadImageError, ImageFiles
from vireid_lightning.errors import VIReIDError

SIZE = (20, 10)
NAMES = [f"{number}.png" for number in range(7)]


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name in NAMES:
        cv2.imwrite(str(folder / name), generator.integers(0, 256, (24, 12, 3), dtype=np.uint8))
    return folder


def make(root, names=NAMES, size=SIZE, interpolation="bilinear"):
    return ImageCache(root.parent / "cache", ImageFiles(root, names, size, interpolation))


def contents(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def build_in_process(root, barrier, queue):
    cache = make(root)
    barrier.wait()
    cache.build(threads=1)
    queue.put((int(cache[3].sum()), cache.path.stat().st_ino))


def test_holds_what_the_files_hold(root):
    cache = make(root).build()
    files = cache.files
    assert len(cache) == len(NAMES)
    assert all((cache[position] == files[position]).all() for position in range(len(NAMES)))
    assert cache[0].dtype == np.uint8
    assert not cache[0].flags.writeable
    assert cache.bad == []
    # One file with everything: a header, 7 images, a flag for each.
    assert cache.path.stat().st_size == 4096 + 7 * 20 * 10 * 3 + 7


def test_is_built_once(root):
    written = make(root).build().path.stat().st_mtime_ns
    assert make(root).is_fresh()
    assert make(root).build().path.stat().st_mtime_ns == written


def test_other_settings_have_other_files(root):
    caches = [
        make(root).build(),
        make(root, size=(10, 20)).build(),
        make(root, interpolation="bicubic").build(),
        make(root, interpolation="opencv-bilinear").build(),
        make(root, names=NAMES[:5]).build(),
    ]
    assert len({cache.path for cache in caches}) == 5
    assert all(cache.is_fresh() for cache in caches)
    assert len(contents(root.parent / "cache")) == 5


def test_a_cache_of_the_former_resizer_is_rebuilt(root):
    cache = make(root).build()
    wanted, content = np.array(cache[3]), cache.path.read_bytes()
    header, images = content[:4096], content[4096:]
    assert b'"version": 2' in header
    former = header.replace(b'"version": 2', b'"version": 1') + bytes(len(images) - len(NAMES)) + images[-len(NAMES) :]
    cache.path.write_bytes(former)
    again = make(root)
    assert not again.is_fresh()
    assert (again.build()[3] == wanted).all()


@pytest.mark.parametrize("change", ["content", "time", "cut", "garbage"])
def test_stale_or_broken_cache_is_rebuilt(root, change):
    cache = make(root).build()
    if change == "content":
        cv2.imwrite(str(root / NAMES[3]), np.full((31, 9, 3), 77, dtype=np.uint8))
    elif change == "time":
        os.utime(root / NAMES[3], ns=(1, 1))
    elif change == "cut":
        cache.path.write_bytes(cache.path.read_bytes()[:-1])
    else:
        cache.path.write_bytes(b"\xff" * 10)
    again = make(root)
    assert not again.is_fresh()
    again.build()
    assert again.is_fresh()
    assert (again[3] == again.files[3]).all()
    assert contents(root.parent / "cache") == [again.path.name]


@pytest.mark.slow
def test_two_processes_build_at_once(root):
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(2), context.Queue()
    processes = [context.Process(target=build_in_process, args=(root, barrier, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    results = [queue.get(timeout=100) for _ in processes]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert results[0] == results[1]  # the second did not build another file
    assert results[0][0] == int(make(root).files[3].sum())
    assert contents(root.parent / "cache") == [make(root).path.name]


def test_pickles_by_path(root):
    cache = make(root, size=(200, 100)).build()
    cache[0]
    content = pickle.dumps(cache)
    assert len(content) < 2000  # an image alone has 60,000 bytes
    assert (pickle.loads(content)[4] == cache[4]).all()


def test_unreadable_files_are_recorded(root):
    (root / NAMES[2]).write_bytes(b"not an image")
    cache = make(root).build()
    assert cache.bad == [2]
    with pytest.raises(BadImageError, match=r"2\.png"):
        cache[2]
    assert (cache[3] == cache.files[3]).all()


def test_missing_file_is_named(root):
    (root / NAMES[2]).unlink()
    with pytest.raises(BadImageError, match=r"2\.png"):
        make(root)


def kill_while_building(root, position):
    """Build with chunks of two images, and kill the process, as nothing can catch, at an image."""
    cache_module._CHUNK = 2
    decode = ImageFiles.__getitem__
    ImageFiles.__getitem__ = lambda self, at: os._exit(9) if at == position else decode(self, at)
    make(root).build(threads=1)


@pytest.mark.slow
def test_a_killed_build_goes_on_with_what_is_missing(root, monkeypatch):
    (root / NAMES[1]).write_bytes(b"not an image")
    process = multiprocessing.get_context("spawn").Process(target=kill_while_building, args=(root, 5))
    process.start()
    process.join(100)
    assert process.exitcode == 9
    cache, read = make(root), []
    assert not cache.is_fresh()
    assert contents(root.parent / "cache") == [f"{cache.path.name}.partial"]
    decode = ImageFiles.__getitem__
    monkeypatch.setattr(ImageFiles, "__getitem__", lambda self, at: read.append(at) or decode(self, at))
    cache.build(threads=1)
    assert read == [4, 5, 6]  # two chunks of two were whole
    assert contents(root.parent / "cache") == [cache.path.name]
    assert cache.bad == [1]
    assert all((cache[at] == decode(cache.files, at)).all() for at in range(len(NAMES)) if at != 1)
    whole = cache.path.read_bytes()
    cache.path.unlink()
    assert make(root).build().path.read_bytes() == whole


def test_a_stopped_build_of_other_images_is_not_gone_on_with(root, monkeypatch):
    monkeypatch.setattr(cache_module, "_CHUNK", 2)

    def stop(self, at):
        if at == 5:
            raise KeyboardInterrupt
        return decode(self, at)

    decode = ImageFiles.__getitem__
    with monkeypatch.context() as patch:
        patch.setattr(ImageFiles, "__getitem__", stop)
        with pytest.raises(KeyboardInterrupt):
            make(root).build(threads=1)
    cv2.imwrite(str(root / NAMES[0]), np.full((24, 12, 3), 77, dtype=np.uint8))
    cache = make(root).build()
    assert all((cache[at] == cache.files[at]).all() for at in range(len(NAMES)))
    assert contents(root.parent / "cache") == [cache.path.name]


def test_a_disk_that_fills_up_gets_its_space_back(root, monkeypatch):
    def fill(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fill)
    with pytest.raises(VIReIDError, match=r"cannot be written .No space left on device"):
        make(root).build()
    assert contents(root.parent / "cache") == []


def test_folder_that_cannot_be_made_is_named(root):
    (root.parent / "cache").write_text("a file is in the way")
    with pytest.raises(VIReIDError, match="cache_dir"):
        make(root).build()


def test_full_disk_is_told_before_building(root, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=4000))
    with pytest.raises(VIReIDError, match="GB free"):
        make(root).build()


def test_removed_cache_is_told(root):
    cache = make(root).build()
    copy = pickle.loads(pickle.dumps(cache))
    cache.path.unlink()
    with pytest.raises(VIReIDError, match="removed or replaced"):
        copy[0]
