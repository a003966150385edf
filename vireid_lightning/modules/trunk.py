"""The contract between a backbone and the kinds of networks behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from vireid_lightning.errors import VIReIDError
from vireid_lightning.kinds import check_kinds, require_settings

#: Number of parts of every backbone: what comes before the first stage, and four stages.
PARTS = 5


class Carried(NamedTuple):
    """What goes from one part to the next where that is more than a map.

    Attributes:
        map: The part's map (B, C, H, W).
        rest: What the next parts need beside it: a vision transformer's class token and registers, the other branches
            of a high-resolution network.
    """

    map: Tensor
    rest: tuple[Tensor, ...]


class Trunk(NamedTuple):
    """A network as the five parts of a :class:`~vireid_lightning.modules.Backbone`.

    Attributes:
        parts: The parts, called one after the other. The first takes images (B, 3, H, W); each returns its map
            (B, C, H, W), or a :class:`Carried` with it, which the next one takes.
        channels: Channels of the parts' maps.
        strides: Strides of the parts' maps in pixels.
        streams: Largest number of parts, from the first, that may exist per modality.
        signed: Whether the last map holds values below 0, as behind anything but a ReLU.
    """

    parts: Sequence[nn.Module]
    channels: list[int]
    strides: list[int]
    streams: int
    signed: bool


@dataclass(frozen=True)
class BackboneSettings:
    """How a backbone is built beyond its name and weights.

    Attributes:
        token: Feature of an image from a vision transformer: ``pooled``, its patch tokens, pooled as the method pools a
            map, or ``class``, its class token.
        patch_stride: Distance of neighbouring patches of a vision transformer in pixels; below the patch size patches
            overlap, such as 12 for patches of 16. null is the patch size.
        drop_path: Largest rate of stochastic depth, that of the last block. null keeps timm's default for the backbone,
            which is 0 for most and 0.1 for Swin.
        last_stride: Stride of stage 4 of a four-stage network: 1, the papers' choice, or 2, as trained on ImageNet.
    """

    token: Literal["pooled", "class"] = "pooled"
    patch_stride: int | None = None
    drop_path: float | None = None
    last_stride: int = 1

    def __post_init__(self) -> None:
        check_kinds(vars(self), type(self), "backbone_settings.")
        if self.patch_stride is not None and self.patch_stride < 1:
            raise VIReIDError(f"backbone_settings.patch_stride is {self.patch_stride}; give at least 1 pixel.")
        if self.drop_path is not None and not 0 <= self.drop_path < 1:
            raise VIReIDError(f"backbone_settings.drop_path is {self.drop_path}; give a rate from 0 to below 1.")
        if self.last_stride not in (1, 2):
            raise VIReIDError(
                f"last_stride is {self.last_stride}; give 1 (as the papers do) or 2 (as trained on ImageNet)."
            )

    @classmethod
    def of(cls, value: BackboneSettings | dict[str, Any]) -> BackboneSettings:
        """Return ``value`` itself, or the settings that a checkpoint holds as a dictionary."""
        return (
            value if isinstance(value, BackboneSettings) else cls(**require_settings(cls, value, "backbone_settings"))
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that a checkpoint may hold."""
        return asdict(self)

    def require_defaults(self, name: str, kind: str, *fields: str) -> None:
        """Refuse settings that have no meaning for a kind of network."""
        for field in fields:
            value = getattr(self, field)
            if value != getattr(BackboneSettings, field):
                raise VIReIDError(
                    f"backbone_settings.{field} is {value}, which {kind} such as '{name}' does not have; leave it out."
                )
