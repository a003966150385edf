"""Constructor arguments that methods share, documented once."""

from __future__ import annotations

import inspect

#: Documentation of an argument by its name. A method documents such an argument itself only to say more.
SHARED_ARGUMENTS = {
    "num_classes": "Number of training identities, ``datamodule.num_identities``; the command line fills it in. None "
    "builds no classifiers: such a module embeds images but cannot be trained.",
    "backbone": "Name of a timm CNN with four stages.",
    "pretrained": "Whether the backbone starts from trained weights: those of the file ``weights``, else those that "
    "timm has for its name.",
    "weights": "File with a state dict of the backbone, for ``pretrained``: .safetensors or .pth, by timm's names "
    "or in their order. ``package:NAME`` takes the file of an installed package; ``small`` the package known for "
    "the backbone, ``tf_efficientnet_lite0`` with the extra ``small-weights``.",
    "optimization": "Optimiser and learning-rate schedule.",
    "init_from": "Checkpoint of any method of this package whose encoder training starts from. Heads (``heads``) start "
    "fresh. A stem per modality starts from the checkpoint's stem of that modality, or from its single one; a single "
    "stem from the checkpoint's single or *visible* one. Not used where a run is resumed or a checkpoint is tested.",
}


def argument_names(method: type) -> list[str]:
    """Return the names of the constructor arguments of a class."""
    return list(inspect.signature(method).parameters)


def document_arguments(method: type) -> None:
    """Add to a class's docstring a line for each shared argument that its constructor has and its text lacks."""
    text = inspect.cleandoc(method.__doc__ or "")
    names = [name for name in argument_names(method) if name in SHARED_ARGUMENTS]
    lines = "".join(f"    {name}: {SHARED_ARGUMENTS[name]}\n" for name in names if f"\n    {name}: " not in text)
    before, _, after = text.partition("\nArgs:\n") if "\nArgs:\n" in text else (f"{text}\n", "", "")
    method.__doc__ = f"{before}\nArgs:\n{lines}{after}" if lines else text
