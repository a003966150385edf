"""Synthetic pedestrians: the same people as a visible and as a near-infrared camera would see them.

Everything follows from (seed, difficulty, person, camera, modality, number), whatever process or order draws it.
"""

from __future__ import annotations

from functools import lru_cache
from math import pi

import cv2
import numpy as np
from numpy.typing import NDArray

from vireid_lightning.data.synthetic.camera import Camera, draw_camera, measure_disturbance
from vireid_lightning.data.synthetic.canvas import Pose
from vireid_lightning.data.synthetic.figure import Figure
from vireid_lightning.data.synthetic.person import TONES, Material, Person, draw_person
from vireid_lightning.errors import VIReIDError
from vireid_lightning.kinds import check_kinds, check_number
from vireid_lightning.types import INFRARED, UNKNOWN

#: Number of the drawing's version: a folder of an earlier version is neither continued nor taken for one of this.
DRAWING_VERSION = 2

#: Shares of red, green and blue in the gray value of a colour, those of ITU-R BT.601.
GRAY = np.array([0.299, 0.587, 0.114])

_PERSON, _CAMERA, _IMAGE = 1, 2, 3  # keys of three independent streams of random numbers


class PedestrianRenderer:
    """Draws pedestrians.

    Args:
        seed: Seed of the people, cameras and images.
        difficulty: How strong the cameras' disturbances are and how much of a person's look the infrared loses, 0 to 1.
        image_size: Height and width in pixels.
        likeness: How much a person's infrared brightness follows the visible one: from 0, not at all, to 1, where it is
            the gray value of the visible colour. Then the infrared shows what a gray image does, and only colour, which
            tells people apart in the visible light, misleads between the modalities.

    Example:
        >>> PedestrianRenderer(seed=0).draw(person=3, camera=6, modality=1, number=0).shape
        (128, 64, 3)
    """

    def __init__(
        self, seed: int = 0, difficulty: float = 0.5, image_size: tuple[int, int] = (128, 64), likeness: float = 0.0
    ) -> None:
        check_number("The seed of synthetic pedestrians", seed, 0, whole=True)
        check_number("The difficulty of synthetic pedestrians", difficulty, 0, 1)
        check_number("The likeness of synthetic pedestrians", likeness, 0, 1)
        check_kinds({"image_size": image_size}, PedestrianRenderer.__init__)
        if min(image_size) < 16 or max(image_size) > 2048:
            raise VIReIDError(f"The image_size of synthetic pedestrians is {image_size}; give 16 to 2048 pixels.")
        self.seed = seed
        self.difficulty = difficulty
        self.image_size = image_size
        self.likeness = likeness
        self.person = lru_cache(maxsize=4096)(self._draw_person)
        self.camera = lru_cache(maxsize=64)(self._draw_camera)

    def __reduce__(self) -> tuple[type, tuple[int, float, tuple[int, int], float]]:
        return type(self), (self.seed, self.difficulty, self.image_size, self.likeness)

    def _draw_person(self, person: int) -> Person:
        """Draw a person from the person's own stream of random numbers."""
        return draw_person(np.random.default_rng([self.seed, _PERSON, person]))

    def _draw_camera(self, camera: int, modality: int) -> Camera:
        """Draw a camera from the camera's own stream of random numbers."""
        rng = np.random.default_rng([self.seed, _CAMERA, camera - UNKNOWN, modality])
        return draw_camera(rng, modality, self.difficulty, *self.image_size)

    def draw(self, person: int, camera: int, modality: int, number: int) -> NDArray[np.uint8]:
        """Return one image: (height, width, 3) uint8 RGB, the three channels equal where infrared.

        Args:
            person: The person's number, 0 or more.
            camera: The camera's number, -1 or more.
            modality: 0 visible, 1 infrared.
            number: Running number of the image among the person's images of this camera.
        """
        rng = np.random.default_rng([self.seed, _IMAGE, person, camera - UNKNOWN, modality, number])
        look, view = self.person(person), self.camera(camera, modality)
        rows, columns = self.image_size
        labels = np.zeros((2 * rows, 2 * columns), np.uint8)  # twice the size, then averaged: smooth edges
        Figure(labels, look, self._draw_pose(rng, view)).paint()
        tones = np.rint(_see_materials(look, modality, self.difficulty, self.likeness)).astype(np.uint8)
        flat = cv2.LUT(cv2.merge([labels, labels, labels]), tones[None])
        colours = cv2.resize(flat, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32)
        covered = (labels > 0).view(np.uint8) * np.uint8(255)
        cover = np.asarray(cv2.resize(covered, (columns, rows), interpolation=cv2.INTER_AREA), dtype=np.uint8)
        image = colours * self._shade(rng, cover)[..., None]
        image += self._cut_background(rng, view) * (1 - cover.astype(np.float32)[..., None] / 255)
        return self._expose(rng, view, image)

    def get_jpeg_quality(self, camera: int, modality: int) -> int:
        """Return the quality at which this camera stores JPEG files."""
        return self.camera(camera, modality).quality

    def _draw_pose(self, rng: np.random.Generator, view: Camera) -> Pose:
        """Draw how the person stands and walks in one image."""
        rows, columns = self.image_size
        jitter = 0.85 + 0.25 * measure_disturbance(self.difficulty)
        unit = 2 * rows * (0.86 + 0.1 * jitter * rng.uniform(-1, 1))
        return Pose(
            yaw=float(rng.choice(4, p=view.views)) * pi / 2 + rng.normal(0, 0.3),
            phase=rng.uniform(0, 2 * pi),
            stride=rng.uniform(0.08, 0.5),
            swing=rng.uniform(0.05, 0.55),
            turn=rng.normal(0, 0.3),
            pitch=view.pitch,
            unit=unit,
            # The figure fills an image of one to two; others show it as wide as they are.
            stretch=2 * columns / rows * (1 + 0.06 * jitter * rng.uniform(-1, 1)),
            x=2 * columns * (0.5 + 0.09 * jitter * rng.uniform(-1, 1)),
            y=rows + 0.5 * unit * 0.97 + 2 * rows * 0.05 * jitter * rng.uniform(-1, 1),
        )

    def _shade(self, rng: np.random.Generator, cover: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return a factor that darkens the figure towards its outline, more on the side away from the light."""
        rows = self.image_size[0]
        depth = cv2.distanceTransform((cover > 127).view(np.uint8), cv2.DIST_L2, 3)
        depth = np.minimum(depth * np.float32(128 / rows / 6), np.float32(1))
        slope = cv2.blur(depth, (3, 3))
        lit = np.float32(rng.uniform(-0.5, 0.5)) * (np.roll(slope, -1, 1) - np.roll(slope, 1, 1))
        factor: NDArray[np.float32] = np.float32(0.72) + np.float32(0.28) * depth + lit
        return factor

    def _cut_background(self, rng: np.random.Generator, view: Camera) -> NDArray[np.uint8]:
        """Cut a window from the camera's panorama, at a place of its own in every image."""
        rows, columns = self.image_size
        zoom = rng.uniform(0.55, 1.3)
        height, width = int(zoom * rows), int(zoom * columns)
        y = int(rng.integers(0, view.place.shape[0] - height + 1))
        x = int(rng.integers(0, view.place.shape[1] - width + 1))
        window = view.place[y : y + height, x : x + width]
        cut = np.asarray(cv2.resize(window, (columns, rows), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
        return cut[:, ::-1] if rng.random() < 0.5 else cut

    def _expose(self, rng: np.random.Generator, view: Camera, image: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return the image as the camera takes it: light, something in the way, haze, blur and noise."""
        rows, columns = self.image_size
        scale = measure_disturbance(self.difficulty)
        x, y = np.linspace(-1, 1, columns, dtype=np.float32)[None], np.linspace(-1, 1, rows, dtype=np.float32)[:, None]
        across, down = (view.ramp + (0.1 + 0.13 * scale) * rng.uniform(-1, 1, 2)).astype(np.float32)
        spot_x, spot_y = (0.3 * rng.uniform(-1, 1, 2)).astype(np.float32)
        light = 1 + across * x + down * y - np.float32(view.spot) * (np.square(x - spot_x) + np.square(y - spot_y)) / 2
        gain = np.float32(view.gain * np.exp(0.25 * scale * rng.uniform(-1, 1)))
        if rng.random() < 0.3 * self.difficulty**2:
            self._occlude(rng, image)
        image *= (np.maximum(light, np.float32(0.1)) * gain)[..., None]
        haze = np.float32(min(0.7, view.haze * rng.uniform(0.5, 1.5)))
        image = image * ((1 - haze) * view.cast.astype(np.float32)) + haze * np.float32(rng.uniform(60, 190))
        noise = rng.standard_normal((rows, columns, 1 if view.modality == INFRARED else 3), np.float32)
        sharp = np.clip(image, 0, 255).astype(np.uint8)
        blur = view.blur * rng.uniform(0.5, 1.5) * rows / 128
        blurred = cv2.GaussianBlur(sharp, (0, 0), blur) if blur > 0.25 else sharp
        noisy = blurred + noise * np.float32(view.noise * rng.uniform(0.6, 1.4))
        levels: NDArray[np.uint8] = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
        return levels

    def _occlude(self, rng: np.random.Generator, image: NDArray[np.float32]) -> None:
        """Put a post, a sill or a corner of something in front of the figure."""
        rows, columns = self.image_size
        height, width = rng.uniform(0.12, 0.35) * rows, rng.uniform(0.2, 0.6) * columns
        if rng.random() < 0.4:
            height, width = float(rows), rng.uniform(0.06, 0.18) * columns
        x, y = int(rng.uniform(0, columns - width)), int(rows - height)
        image[y:, x : x + int(width)] = np.float32(rng.uniform(20, 220))


def _see_materials(person: Person, modality: int, difficulty: float, likeness: float) -> NDArray[np.float64]:
    """Return what a camera sees of every material: (256, 3) in [0, 255]."""
    tones = np.zeros((256, 3))
    if modality != INFRARED:
        tones[: len(Material)] = person.colour
    else:
        seen = (1 - likeness) * person.reflectance + likeness * (person.colour @ GRAY)
        for (first, second), kept in zip(TONES, person.tone_kept):
            # Dyes vanish in the infrared: the two tones of a texture come nearer to each other.
            seen[second] = seen[first] + (1 - difficulty * (1 - kept)) * (seen[second] - seen[first])
        # Cloths are bright in the infrared: the garments come nearer to each other too.
        tones[: len(Material)] = (150 + (1 - 0.4 * difficulty) * (seen - 150))[:, None]
    tones[Material.NOTHING] = 0
    return tones
