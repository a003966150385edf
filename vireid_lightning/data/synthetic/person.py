"""What synthetic people are like: everything of a person that stays the same from image to image.

A person is proportions, hair, garments and things carried, each of a material with a visible colour and a near-infrared
reflectance that is drawn independently: colour does not tell the infrared look, while shapes and textures carry over.
The renderer's ``likeness`` lets the reflectance follow the colour's brightness instead.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Material(IntEnum):
    """The label of each pixel of a drawn figure; an index into :attr:`Person.colour` and :attr:`Person.reflectance`."""

    NOTHING = 0
    SKIN = 1
    HAIR = 2
    TOP = 3
    TOP_SECOND = 4
    INNER = 5
    BOTTOM = 6
    BOTTOM_SECOND = 7
    SHOES = 8
    LEGWEAR = 9
    BAG = 10
    BAG_SECOND = 11
    GLASSES = 12
    HAT = 13


#: Garments' two tones: each pair shows a texture, whose contrast may be lost in the infrared.
TONES = (
    (Material.TOP, Material.TOP_SECOND),
    (Material.BOTTOM, Material.BOTTOM_SECOND),
    (Material.BAG, Material.BAG_SECOND),
)


@dataclass(frozen=True)
class Texture:
    """Where a garment shows its second tone.

    Attributes:
        kind: ``plain``, ``stripes`` (across the body), ``pinstripes`` (along it), ``checks``, ``dots``, ``band`` (one
            stripe), ``block`` (two halves) or ``print`` (a figure on the chest).
        period: Length of one repetition in body heights.
        duty: The second tone's share of a period.
        start: Where a band, block or print begins, in body heights below the garment's upper edge.
    """

    kind: str
    period: float
    duty: float
    start: float

    def shows_second_tone(self, along: NDArray[np.floating], around: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return where the second tone shows, bool of the arguments' broadcast shape.

        Args:
            along: Distance from the garment's upper edge in body heights.
            around: Distance around the body or limb from its front in body heights.
        """
        across_stripe: NDArray[np.bool_] = np.mod(along, self.period) < self.duty * self.period
        along_stripe: NDArray[np.bool_] = np.mod(around, self.period) < self.duty * self.period
        if self.kind == "stripes":
            return across_stripe
        if self.kind == "pinstripes":
            return along_stripe
        if self.kind == "checks":
            return across_stripe ^ along_stripe
        if self.kind == "dots":
            half = self.period / 2
            square = np.square(np.mod(along, self.period) - half) + np.square(np.mod(around, self.period) - half)
            return np.asarray(square < np.square(0.75 * half), dtype=bool)
        if self.kind == "band":
            return (along > self.start) & (along < self.start + 1.2 * self.period)
        if self.kind == "block":
            return along < self.start + 0.05
        if self.kind == "print":
            square = np.square((along - self.start - 0.05) / 0.045) + np.square(around / (0.04 + self.period / 3))
            return np.asarray(square < 1, dtype=bool)
        return np.zeros(along.shape, dtype=bool)


@dataclass(frozen=True)
class Person:
    """One identity. Lengths are in body heights.

    Attributes:
        colour: (14, 3) float, red, green and blue in [0, 255] of every :class:`Material`.
        reflectance: (14,) float, near-infrared brightness in [0, 255], independent of ``colour``.
        tone_kept: (3,) float in [0, 1], how much of each pair of :data:`TONES` a lossy infrared camera keeps.
        hip, shoulder, waist, depth, leg, head, limb, arm: Height of the hips; half widths of shoulders, waist and
            chest depth; radius of thigh and head; factor on the limbs' thickness; length of the arm.
        hair: ``none``, ``short``, ``long``, ``tail``, ``bun``, ``curls`` or ``hat``.
        sleeve: How much of the arm is covered, 0 to 1.
        hem: How far the top reaches below the hips.
        flare: Factor on the width of the hem.
        open_front: Whether the top is an open jacket over an inner shirt.
        hood: Whether the top has a hood or high collar.
        bottom: ``trousers``, ``shorts`` or ``skirt``.
        bottom_length: Share of the leg that shorts or a skirt cover.
        bottom_width: Factor on the legs of trousers and shorts, or the skirt's flare.
        boot: Share of the lower leg that the shoes cover.
        bare_legs: Whether shorts or a skirt show skin rather than legwear.
        bag: ``none``, ``backpack``, ``shoulder`` or ``hand``.
        bag_size: Half the bag's height.
        bag_side: 1 or -1, the side of a shoulder bag or handbag.
        glasses: Whether glasses are worn.
    """

    colour: NDArray[np.float64]
    reflectance: NDArray[np.float64]
    tone_kept: NDArray[np.float64]
    hip: float
    shoulder: float
    waist: float
    depth: float
    leg: float
    head: float
    limb: float
    arm: float
    hair: str
    sleeve: float
    hem: float
    flare: float
    open_front: bool
    hood: bool
    bottom: str
    bottom_length: float
    bottom_width: float
    boot: float
    bare_legs: bool
    bag: str
    bag_size: float
    bag_side: int
    glasses: bool
    top_texture: Texture
    bottom_texture: Texture


def _draw_cloth(rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a colour as clothes have it: often grey, black, white or blue, sometimes strong."""
    hue = rng.uniform(0.55, 0.7) if rng.random() < 0.3 else rng.random()
    saturation = rng.uniform(0, 0.15) if rng.random() < 0.4 else rng.uniform(0.2, 0.95)
    return 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, rng.uniform(0.1, 0.98)))


def _draw_texture(rng: np.random.Generator, kinds: tuple[str, ...], weights: tuple[float, ...]) -> Texture:
    """Draw a texture of one of several kinds."""
    kind = str(rng.choice(kinds, p=weights))
    return Texture(kind, rng.uniform(0.045, 0.13), rng.uniform(0.35, 0.6), rng.uniform(0.02, 0.16))


def draw_person(rng: np.random.Generator) -> Person:
    """Draw one identity; the same generator state gives the same person."""
    colour = np.stack([_draw_cloth(rng) for _ in Material])
    reflectance = rng.uniform(30, 245, len(Material))
    tones = np.array([rng.uniform(0.35, 1.0), rng.uniform(0.35, 1.0), rng.uniform(0.35, 1.0)])
    skin = rng.uniform(0.35, 1.0)
    colour[Material.SKIN] = skin * np.array([235, rng.uniform(175, 200), rng.uniform(140, 175)])
    reflectance[Material.SKIN] = rng.uniform(165, 215)
    hair = rng.uniform(0.1, 1.0) ** 2
    colour[Material.HAIR] = 25 + hair * np.array([190, rng.uniform(110, 170), rng.uniform(50, 120)])
    reflectance[Material.HAIR] = rng.uniform(30, 230)
    colour[Material.GLASSES] = reflectance[Material.GLASSES] = rng.uniform(10, 40)
    for first, second in TONES:
        # A texture is there to be seen: the second tone differs clearly in the visible light and, drawn apart from it,
        # in the infrared, where the camera may then lose some of it (Person.tone_kept).
        step = rng.choice([-1, 1]) * rng.uniform(70, 140)
        colour[second] = np.clip(colour[second] - colour[second].mean() + _shift(colour[first].mean(), step), 0, 255)
        reflectance[second] = _shift(reflectance[first], rng.choice([-1, 1]) * rng.uniform(70, 140))
    bottom = str(rng.choice(["trousers", "shorts", "skirt"], p=[0.5, 0.22, 0.28]))
    top_kinds = ("plain", "stripes", "pinstripes", "checks", "dots", "band", "block", "print")
    top_weights = (0.16, 0.15, 0.11, 0.12, 0.1, 0.12, 0.12, 0.12)
    bottom_kinds = ("plain", "stripes", "pinstripes", "checks", "block")
    return Person(
        colour=colour,
        reflectance=reflectance,
        tone_kept=tones,
        hip=rng.uniform(0.44, 0.53),
        shoulder=rng.uniform(0.095, 0.14),
        waist=rng.uniform(0.065, 0.12),
        depth=rng.uniform(0.05, 0.095),
        leg=rng.uniform(0.042, 0.062),
        head=rng.uniform(0.056, 0.072),
        limb=rng.uniform(0.8, 1.25),
        arm=rng.uniform(0.36, 0.43),
        hair=str(
            rng.choice(
                ["none", "short", "long", "tail", "bun", "curls", "hat"], p=[0.08, 0.2, 0.2, 0.14, 0.1, 0.13, 0.15]
            )
        ),
        sleeve=float(rng.choice([0.12, 0.42, 1.0], p=[0.2, 0.35, 0.45])),
        hem=float(
            rng.choice([rng.uniform(-0.03, 0.03), rng.uniform(0.05, 0.1), rng.uniform(0.16, 0.3)], p=[0.5, 0.25, 0.25])
        ),
        flare=rng.uniform(1.0, 1.35),
        open_front=bool(rng.random() < 0.28),
        hood=bool(rng.random() < 0.25),
        bottom=bottom,
        bottom_length=rng.uniform(0.3, 0.62) if bottom == "shorts" else rng.uniform(0.35, 0.95),
        bottom_width=rng.uniform(0.8, 1.6),
        boot=float(rng.choice([0.0, rng.uniform(0.3, 0.9)], p=[0.65, 0.35])),
        bare_legs=bool(rng.random() < 0.6),
        bag=str(rng.choice(["none", "backpack", "shoulder", "hand"], p=[0.34, 0.24, 0.21, 0.21])),
        bag_size=rng.uniform(0.055, 0.11),
        bag_side=int(rng.choice([-1, 1])),
        glasses=bool(rng.random() < 0.3),
        top_texture=_draw_texture(rng, top_kinds, top_weights),
        bottom_texture=_draw_texture(rng, bottom_kinds, (0.52, 0.12, 0.12, 0.12, 0.12)),
    )


def _shift(value: float, step: float) -> float:
    """Move a brightness by a step, the other way where it would leave the range."""
    return value + step if 15 <= value + step <= 250 else value - step
