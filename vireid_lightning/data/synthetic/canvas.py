"""Painting in a map of material labels: the projection of a pose, and polygons, ellipses, limbs and textures.

The body's own axes are lateral (to its left), up and forward; lengths are in body heights. A map of labels holds one
:class:`~vireid_lightning.data.synthetic.person.Material` per pixel, so that the same figure can be seen by any camera.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, hypot, pi, sin

import cv2
import numpy as np
from numpy.typing import NDArray

from vireid_lightning.data.synthetic.person import Material, Texture

_SHIFT = 4  # cv2 takes coordinates with this many binary places

Point = tuple[float, float]


@dataclass(frozen=True)
class Pose:
    """What one image draws of a body.

    Attributes:
        yaw: Direction of walking: 0 towards the camera, pi away from it, in radians.
        phase: Phase of the gait in radians.
        stride: Largest angle of the thighs in radians.
        swing: Largest angle of the arms in radians.
        turn: How far the head is turned against the body in radians.
        pitch: How far the camera looks down in radians.
        unit: Pixels per body height.
        stretch: Factor on the width.
        x, y: The point between the feet in pixels.
    """

    yaw: float
    phase: float
    stride: float
    swing: float
    turn: float
    pitch: float
    unit: float
    stretch: float
    x: float
    y: float


class Canvas:
    """Paints in ``labels`` (rows, columns) uint8 what a camera sees of a body in one pose."""

    def __init__(self, labels: NDArray[np.uint8], pose: Pose) -> None:
        self.labels = labels
        self.pose = pose
        self.facing = cos(pose.yaw)  # 1 seen from the front, -1 from the back
        self.aside = sin(pose.yaw)

    def project(self, lateral: float, up: float, forward: float) -> Point:
        """Return where a point of the body lies in the image, in pixels."""
        pose = self.pose
        depth = forward * self.facing - lateral * self.aside
        x = pose.x + pose.unit * pose.stretch * (lateral * self.facing + forward * self.aside)
        return x, pose.y - pose.unit * (up * cos(pose.pitch) - depth * sin(pose.pitch))

    def project_width(self, width: float, depth: float) -> float:
        """Return half the breadth of an upright elliptic body at this yaw, in pixels."""
        return self.pose.unit * self.pose.stretch * hypot(width * self.facing, depth * self.aside)

    def fill_polygon(self, points: list[Point], material: Material) -> None:
        """Paint a polygon."""
        fixed = np.rint(np.asarray(points) * (1 << _SHIFT)).astype(np.int32)
        cv2.fillPoly(self.labels, [fixed], int(material), cv2.LINE_8, _SHIFT)

    def fill_ellipse(self, centre: Point, half_axes: Point, material: Material, arc: Point = (0.0, 360.0)) -> None:
        """Paint an ellipse, or the sector of it within ``arc`` (degrees, clockwise from the right)."""
        one = 1 << _SHIFT
        centre_fixed = (round(centre[0] * one), round(centre[1] * one))
        axes = (max(1, round(half_axes[0] * one)), max(1, round(half_axes[1] * one)))
        cv2.ellipse(self.labels, centre_fixed, axes, 0, *arc, int(material), -1, cv2.LINE_8, _SHIFT)

    def fill_limb(self, start: Point, end: Point, radii: Point, material: Material) -> list[Point]:
        """Paint a tapered limb with round ends (radii in pixels) and return its outline."""
        length = max(hypot(end[0] - start[0], end[1] - start[1]), 1e-6)
        normal = ((start[1] - end[1]) / length, (end[0] - start[0]) / length)
        outline = [
            (point[0] + side * radius * normal[0], point[1] + side * radius * normal[1])
            for point, radius, side in (
                (start, radii[0], 1),
                (end, radii[1], 1),
                (end, radii[1], -1),
                (start, radii[0], -1),
            )
        ]
        self.fill_polygon(outline, material)
        for point, radius in ((start, radii[0]), (end, radii[1])):
            self.fill_ellipse(point, (radius, radius), material)
        return outline

    def weave(
        self, outline: list[Point], texture: Texture, tones: tuple[Material, Material], axis: tuple[Point, Point],
        radius: float, above: float = 0.0, yaw: float = 0.0,
    ) -> None:  # fmt: skip
        """Give the second tone of ``texture`` to the pixels of the first within ``outline``.

        ``axis`` runs down the part's middle, ``radius`` is its half width in pixels, and the texture goes on from
        ``above`` body heights further up. Seen as wrapped around a cylinder whose front is turned by ``yaw``.
        """
        if texture.kind == "plain":
            return
        corners = np.asarray(outline)
        rows, columns = self.labels.shape
        left, top = np.clip(np.floor(corners.min(0) - radius / 2).astype(int), 0, (columns, rows))
        right, bottom = np.clip(np.ceil(corners.max(0) + radius / 2).astype(int) + 1, 0, (columns, rows))
        if left >= right or top >= bottom:
            return
        (x, y), (end_x, end_y) = axis
        length = max(hypot(end_x - x, end_y - y), 1e-6)
        down = ((end_x - x) / length, (end_y - y) / length)
        dx = np.arange(left, right, dtype=np.float32)[None] - x
        dy = np.arange(top, bottom, dtype=np.float32)[:, None] - y
        along = (dx * down[0] + dy * down[1]) / self.pose.unit + above
        angle = np.arcsin(np.clip((dx * down[1] - dy * down[0]) / radius, -1, 1)) - yaw
        around = (np.mod(angle + pi, 2 * pi) - pi) * (radius / self.pose.unit)
        patch = self.labels[top:bottom, left:right]
        patch[(patch == tones[0]) & texture.shows_second_tone(along, around)] = tones[1]
