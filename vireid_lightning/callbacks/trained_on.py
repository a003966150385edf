"""Whether the data lists the images and identities that a checkpoint's weights were trained beside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods.checkpoint import BLOCK


def find_other_lists(path: object, checkpoint: Mapping[str, Any], datamodule: Any, *, allow: bool) -> bool:
    """Return whether a checkpoint was trained on other lists of images, or other identities, of the data's dataset.

    Such lists may train on the images that are now searched: another split, other files, or a manifest of other
    cameras. Weights that are scored on a dataset of another name are a result across datasets, which says so and is
    not refused; whether a training may go on is the method's to say. Another trial is told as such, see
    :class:`~vireid_lightning.callbacks.run_files.Provenance`.

    Args:
        path: The checkpoint's path, for the message.
        checkpoint: Content of the file; one that says nothing of its dataset is taken to fit.
        datamodule: The data; one without a ``dataset`` and its ``fingerprint`` is taken to fit.
        allow: Whether the lists may be others.

    Raises:
        VIReIDError: If they are, and may not be.
    """
    block = checkpoint.get(BLOCK, {})
    trained = block.get("dataset") or {}
    if not trained.get("fingerprint") or not hasattr(type(datamodule), "fingerprint"):
        return False
    dataset = datamodule.dataset
    if trained.get("name") != dataset.name or trained.get("trial") != dataset.trial:
        return False
    before, now = (trained["fingerprint"], block.get("identities")), (datamodule.fingerprint, datamodule.identities)
    if before[0] == now[0] and before[1] in (None, now[1]):
        return False
    if allow:
        return True
    former, present = (
        f"{name} with fingerprint {fingerprint} and {len(identities or ())} training identities"
        for name, (fingerprint, identities) in ((trained.get("name"), before), (dataset.name, now))
    )
    raise VIReIDError(
        f"{path} was trained on {former}, but the data is {present}: another split, other files or other people; "
        "open the dataset as in training, or give --allow-preprocessing-mismatch to do it all the same, marked as such."
    )
