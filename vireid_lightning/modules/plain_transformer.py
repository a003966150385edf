"""A plain vision transformer of timm's as the parts of a backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.patch_embed import PatchEmbed
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vireid_lightning.errors import VIReIDError
from vireid_lightning.modules.timm_creation import create, create_pretrained
from vireid_lightning.modules.trunk import PARTS, BackboneSettings, Carried, Trunk

#: timm's modules whose networks are plain vision transformers, if all goes as in these classes.
TRANSFORMER_FAMILIES = {"vision_transformer": VisionTransformer, "deit": VisionTransformer, "eva": Eva}


class PatchEmbedding(nn.Module):
    """Turns images into a map of patch embeddings.

    Args:
        embedding: timm's patch embedding.
        stride: Distance of neighbouring patches in pixels; None keeps that of the convolution.
    """

    def __init__(self, embedding: PatchEmbed, stride: int | None) -> None:
        super().__init__()
        self.proj: nn.Conv2d = embedding.proj
        self.norm: nn.Module = embedding.norm
        if stride is not None:
            self.proj.stride = (stride, stride)

    def map_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Return rows and columns of patches of an image.

        Overlapping patches leave out what is too little for another patch at the right and at the bottom (as He et al.,
        ICCV 2021, do).

        Raises:
            VIReIDError: If patches that do not overlap do not fill the image, or none fits into it.
        """
        patch, stride = self.proj.kernel_size, self.proj.stride
        if any(side < p or (p == s and side % p) for side, p, s in zip(image_size, patch, stride)):
            below = [max(side // p, 1) * p for side, p in zip(image_size, patch)]
            raise VIReIDError(
                f"An image of {image_size[0]} x {image_size[1]} pixels cannot be cut into the backbone's patches of "
                f"{patch[0]} x {patch[1]}; set image_size to {below} or {[b + p for b, p in zip(below, patch)]}."
            )
        rows, columns = ((side - p) // s + 1 for side, p, s in zip(image_size, patch, stride))
        return rows, columns

    def forward(self, images: Tensor) -> Tensor:
        """Return the map (B, C, rows, columns) of images (B, 3, H, W)."""
        self.map_size((images.shape[2], images.shape[3]))
        normalised: Tensor = self.norm(self.proj(images).permute(0, 2, 3, 1))
        return normalised.permute(0, 3, 1, 2)


def resample_positions(grid: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample position embeddings (1, C, H, W) to another number of patches, bicubically and against aliasing."""
    if tuple(grid.shape[2:]) == size:
        return grid
    return F.interpolate(grid.float(), size, mode="bicubic", antialias=True).to(grid.dtype)


class PositionEmbedding(nn.Module):
    """Learnt position embeddings of the patches, kept for one size of image and resampled for any other.

    A state dict is loaded with the size that it was saved with.

    Args:
        grid: (1, C, rows, columns), the embeddings to start from.
    """

    def __init__(self, grid: Tensor) -> None:
        super().__init__()
        self.grid = nn.Parameter(grid.contiguous())

    @torch.no_grad()
    def fit(self, size: tuple[int, int]) -> None:
        """Resample the embeddings to a number of rows and columns, in which they are trained and saved from now on."""
        self.grid.data = resample_positions(self.grid.data, size)

    def forward(self, x: Tensor) -> Tensor:
        """Return a map (B, C, rows, columns) with its positions added."""
        return x + resample_positions(self.grid, (x.shape[2], x.shape[3]))

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *arguments: Any) -> None:
        found = state_dict.get(f"{prefix}grid")
        if isinstance(found, Tensor) and found.ndim == 4 and found.shape[:2] == self.grid.shape[:2]:
            self.grid.data = self.grid.data.new_empty(found.shape)
        super()._load_from_state_dict(state_dict, prefix, *arguments)


class TokenEmbedding(nn.Module):
    """Turns a map of patch embeddings into tokens: positions added, class token and registers in front.

    Args:
        network: timm's network.
    """

    def __init__(self, network: VisionTransformer | Eva) -> None:
        super().__init__()
        prefix = [token.detach() for token in (network.cls_token, network.reg_token) if token is not None]
        positions = None if network.pos_embed is None else network.pos_embed.detach()
        tokens = torch.cat(prefix, dim=1) if prefix else None
        if positions is not None:
            count = positions.shape[1] - network.patch_embed.num_patches
            if tokens is not None and count:
                # A position of a token that is always there is a part of that token.
                tokens = tokens + positions[:, :count]
            grid = positions[:, count:].transpose(1, 2).unflatten(2, network.patch_embed.grid_size)
        self.prefix = None if tokens is None else nn.Parameter(tokens.clone())
        self.position = None if positions is None else PositionEmbedding(grid.clone())
        self.drop = network.pos_drop
        self.norm: nn.Module = network.norm_pre
        self.rope: Any = getattr(network, "rope", None)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return tokens (B, tokens, C) of a map, and the rotation of their positions where the network has one."""
        if self.position is not None:
            x = self.position(x)
        tokens = x.flatten(2).transpose(1, 2)
        if self.prefix is not None:
            tokens = torch.cat([self.prefix.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        rotation = None if self.rope is None else self.rope.get_embed(shape=[x.shape[2], x.shape[3]])
        return self.norm(self.drop(tokens)), rotation


class TransformerPart(nn.Module):
    """A quarter of a transformer's blocks.

    Args:
        network: timm's network.
        quarter: Which one, from 1; the first begins with the token embedding, the last ends with the norm.
    """

    def __init__(self, network: VisionTransformer | Eva, quarter: int) -> None:
        super().__init__()
        depth, quarters = len(network.blocks), PARTS - 1
        self.first = round(depth * (quarter - 1) / quarters)
        self.prefix = network.num_prefix_tokens
        self.rotates = isinstance(network, Eva)
        self.mixed = bool(getattr(network, "rope_mixed", False))
        self.embedding = TokenEmbedding(network) if quarter == 1 else None
        self.blocks = nn.ModuleList(list(network.blocks)[self.first : round(depth * quarter / quarters)])
        # Where timm normalises only the pooled vector, each token is: every feature of it then has one scale.
        last = network.fc_norm if isinstance(network.norm, nn.Identity) else network.norm
        self.norm: nn.Module | None = last if quarter == quarters else None

    def forward(self, x: Tensor | Carried) -> Carried:
        """Return the patch tokens as a map, with the other tokens and the rotation of positions beside it."""
        if isinstance(x, Carried):
            size, rotation = (x.map.shape[2], x.map.shape[3]), x.rest[1] if len(x.rest) > 1 else None
            tokens = torch.cat([x.rest[0], x.map.flatten(2).transpose(1, 2)], dim=1)
        else:
            assert self.embedding is not None  # only the first quarter follows a map alone
            size = (x.shape[2], x.shape[3])
            tokens, rotation = self.embedding(x)
        for number, block in enumerate(self.blocks, start=self.first):
            if self.rotates:
                tokens = block(tokens, rope=rotation[number] if self.mixed and rotation is not None else rotation)
            else:
                tokens = block(tokens)
        if self.norm is not None:
            tokens = self.norm(tokens)
        patches = tokens[:, self.prefix :].transpose(1, 2).unflatten(2, size)
        rest = (tokens[:, : self.prefix],)
        return Carried(patches, rest if rotation is None else (*rest, rotation))


def build_transformer(
    name: str, family: str, settings: BackboneSettings, *, pretrained: bool, weights: str | None
) -> Trunk:
    """Build the patch embedding and the four quarters of the blocks of a plain vision transformer.

    Args:
        name: A timm model name, with or without a tag of pretrained weights.
        family: The module of timm that defines the model.
        settings: How the backbone is built.
        pretrained: Load pretrained weights, from ``weights`` or, where that is None, those of the name's tag.
        weights: Local file with a timm state dict of the model.

    Raises:
        VIReIDError: If the model is not built as timm's ViT or EVA, the settings do not fit it, or the weights cannot
            be loaded.
    """
    settings.require_defaults(name, "a plain vision transformer", "last_stride")
    arguments = {"num_classes": 0, "dynamic_img_size": True, "drop_path": settings.drop_path}
    try:
        network = create(name, **arguments)
    except (RuntimeError, TypeError, AssertionError) as error:
        raise VIReIDError(_not_plain(name)) from error
    _require_plain(network, name, TRANSFORMER_FAMILIES[family])
    if pretrained:
        network = create_pretrained(name, weights, **arguments)
    assert isinstance(network, VisionTransformer | Eva)
    if settings.token == "class" and network.cls_token is None:
        raise VIReIDError(f"'{name}' has no class token; set backbone_settings.token: pooled.")
    return cut_transformer(network, settings.patch_stride)


def cut_transformer(network: VisionTransformer | Eva, patch_stride: int | None = None) -> Trunk:
    """Cut a network of timm's into patch embedding and quarters; the network is used up.

    Args:
        network: Created with ``dynamic_img_size``.
        patch_stride: Distance of neighbouring patches in pixels; None is that of the network.

    Raises:
        VIReIDError: If ``patch_stride`` is larger than a patch.
    """
    patch = network.patch_embed.patch_size[0]
    if patch_stride is not None and patch_stride > patch:
        raise VIReIDError(
            f"backbone_settings.patch_stride is {patch_stride}, which leaves out pixels between patches of {patch}; "
            "give at most that."
        )
    embedding = PatchEmbedding(network.patch_embed, patch_stride)
    parts = [embedding, *(TransformerPart(network, quarter) for quarter in range(1, PARTS))]
    return Trunk(parts, [network.embed_dim] * PARTS, [embedding.proj.stride[0]] * PARTS, streams=1, signed=True)


def _require_plain(network: nn.Module, name: str, kind: type[nn.Module]) -> None:
    """Refuse networks of other structure than the one that the parts above follow."""
    same = isinstance(network, kind) and all(
        getattr(type(network), method) is getattr(kind, method) for method in ("forward_features", "_pos_embed")
    )
    patches = getattr(network, "patch_embed", None)
    if not same or type(patches) is not PatchEmbed or not isinstance(patches.proj, nn.Conv2d):
        raise VIReIDError(_not_plain(name))


def _not_plain(name: str) -> str:
    return (
        f"'{name}' is a vision transformer of a structure of its own, which is not supported; choose a plain one, "
        "such as vit_small_patch16_224, vit_small_patch14_reg4_dinov2, eva02_small_patch14_224 or "
        "vit_base_patch16_siglip_224."
    )
