"""Whether the data prepares its images as those were prepared that a checkpoint's weights were trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods.checkpoint import BLOCK

#: Settings of the datamodule that a message can tell to change word by word.
_SETTINGS = ("image_size", "interpolation", "intensity_range")


def find_mismatch(path: object, checkpoint: Mapping[str, Any], datamodule: object, *, allow: bool) -> bool:
    """Return whether a checkpoint's weights were trained on images that were prepared in another way than the data's.

    Args:
        path: The checkpoint's path, for the message.
        checkpoint: Content of the file; one that says nothing of its images is taken to fit.
        datamodule: The data; one without an attribute ``preprocessing`` is taken to fit.
        allow: Whether the images may be prepared in another way.

    Raises:
        VIReIDError: If they are, and may not be.
    """
    block = checkpoint.get(BLOCK, {})
    stored, here = block.get("preprocessing"), getattr(datamodule, "preprocessing", None)
    if not stored or here is None:
        return False
    if is_unfiltered := "resizer" not in stored:
        if "identities" not in block:  # what this package has trained has them
            if allow:
                return True
            raise VIReIDError(
                f"{path} holds imported weights, written before the importer noted how their authors resize images: "
                "import them again with `vireid import-checkpoint`, or give --allow-preprocessing-mismatch to score "
                "them all the same, marked as such."
            )
        stored = {**stored, "interpolation": f"opencv-{stored.get('interpolation', 'bilinear')}"}
    if "intensity_range" in here:  # absent where all images have 8 bits
        stored = {"intensity_range": "null", **stored}
    # The resizer follows from the interpolation's name, which is the setting to change.
    names = [name for name in (stored | here) if name != "resizer" and stored.get(name) != here.get(name)]
    if not names or allow:
        return bool(names)
    old = " (it was written when that went by OpenCV's name alone)" if is_unfiltered else ""
    trained, wanted = (", ".join(f"{name} {values.get(name)}" for name in names) for values in (stored, here))
    settings = " ".join(f'--data.{name} "{stored[name]}"' for name in names if name in _SETTINGS and name in stored)
    mend = f"set {settings}" if settings else "prepare them in the same way"
    raise VIReIDError(
        f"{path} was trained on images with {trained}{old}, but the data's have {wanted}; {mend}, or give "
        "--allow-preprocessing-mismatch to score it all the same, marked as such."
    )
