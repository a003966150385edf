"""The releases that can be imported, by method."""

from __future__ import annotations

from vireid_lightning.errors import VIReIDError, did_you_mean
from vireid_lightning.methods.released.agw import AGWRelease
from vireid_lightning.methods.released.dclnet import DCLNetRelease
from vireid_lightning.methods.released.mpanet import MPANetRelease
from vireid_lightning.methods.released.release import Release, State

RELEASES: dict[str, Release] = {"mpanet": MPANetRelease(), "dclnet": DCLNetRelease(), "agw": AGWRelease()}


def release_of(method: str) -> Release:
    """Return the release of a method by its name in any case."""
    if method.lower() not in RELEASES:
        raise VIReIDError(
            f"There is no released layout for the method '{method}'; there are {', '.join(RELEASES)}."
            f"{did_you_mean(method, RELEASES)}"
        )
    return RELEASES[method.lower()]


def looks_like(state: State) -> str:
    """Say in a few words whose network a state dict is."""
    for key, release in RELEASES.items():
        if any(name.startswith(release.signature) for name in state):
            return f"{release.title} (--method {key})"
    roots = sorted({name.split(".")[0] for name in state})
    if {"conv1", "layer4"} <= set(roots):
        return "a plain ResNet, such as torchvision's ImageNet weights"
    if {"visible_module", "thermal_module"} <= set(roots):
        return "a two-stream network without AGW's non-local blocks or DCLNet's part classifiers"
    shown = ", ".join(roots[:6]) + (", ..." if len(roots) > 6 else "")
    return f"none of the released ones: its tensors are named {shown}"
