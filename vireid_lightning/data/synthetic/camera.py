"""What synthetic cameras are like: everything of a camera that stays the same from image to image."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vireid_lightning.types import INFRARED


@dataclass(frozen=True)
class Camera:
    """One camera; every image that it takes is drawn from these ranges.

    Attributes:
        modality: 0 visible, 1 infrared.
        views: (4,) probabilities of front, left, back and right.
        pitch: How far the camera looks down, in radians.
        gain: Mean exposure.
        cast: (3,) factor on red, green and blue.
        ramp: (2,) slope of the light across and down the image.
        spot: How much brighter the centre of the image is than its corners (infrared illumination).
        haze: Share of grey that veils the image.
        blur: Mean standard deviation of the blur, in pixels at 128 rows.
        noise: Mean standard deviation of the noise, in grey levels.
        quality: JPEG quality.
        place: (rows, columns, 3) uint8, the panorama that backgrounds are cut from.
    """

    modality: int
    views: NDArray[np.float64]
    pitch: float
    gain: float
    cast: NDArray[np.float64]
    ramp: NDArray[np.float64]
    spot: float
    haze: float
    blur: float
    noise: float
    quality: int
    place: NDArray[np.uint8]


def measure_disturbance(difficulty: float) -> float:
    """Return how strong the cameras' disturbances are: at 0.5 about twice as strong as at 0, and at 1 twice again.

    They never vanish: even the easiest cameras leave raw pixels useless.
    """
    return 0.35 + 0.45 * difficulty + 0.8 * difficulty**2


def draw_camera(rng: np.random.Generator, modality: int, difficulty: float, rows: int, columns: int) -> Camera:
    """Draw one camera whose disturbances grow with ``difficulty``; its backgrounds fit images of rows x columns."""
    infrared = modality == INFRARED
    scale = measure_disturbance(difficulty)
    return Camera(
        modality=modality,
        views=rng.dirichlet(np.full(4, 3.0)),
        pitch=rng.uniform(0.05, 0.35),
        gain=rng.uniform(0.9, 1.15) if infrared else rng.uniform(0.75, 1.2),
        cast=np.ones(3) if infrared else 1 + 0.25 * scale * rng.uniform(-1, 1, 3),
        ramp=(0.12 + 0.2 * scale) * rng.uniform(-1, 1, 2),
        spot=scale * (rng.uniform(0.25, 0.6) if infrared else rng.uniform(0, 0.2)),
        haze=scale * rng.uniform(0, 0.25),
        blur=scale * rng.uniform(0.2, 0.9),
        noise=scale * (rng.uniform(4, 10) if infrared else rng.uniform(2, 6)),
        quality=int(rng.integers(75, 95)),
        place=_draw_place(rng, infrared, 0.3 + 0.3 * scale, 2 * rows, 6 * columns),
    )


def _draw_place(rng: np.random.Generator, infrared: bool, clutter: float, rows: int, columns: int) -> NDArray[np.uint8]:
    """Draw a panorama: a wall, a floor, and doors, posters and poles of every size that stand out by ``clutter``."""
    # Infrared lamps reach people better than what is behind them.
    ground = rng.uniform(40, 110) if infrared else rng.uniform(70, 190)

    def draw_tone() -> tuple[float, float, float]:
        grey = ground + clutter * rng.uniform(-110, 110)
        red, green, blue = np.clip(grey + (0 if infrared else 1) * rng.normal(0, 22, 3), 0, 255)
        return float(red), float(green), float(blue)

    place = np.empty((rows, columns, 3), np.uint8)
    horizon = int(rows * rng.uniform(0.55, 0.75))
    place[:horizon] = draw_tone()
    place[horizon:] = draw_tone()
    for _ in range(int(rng.integers(30, 60))):
        x, y = int(rng.uniform(-0.05, 1) * columns), int(rng.uniform(-0.1, 1) * rows)
        width, height = int(rng.uniform(0.01, 0.1) * columns), int(rng.uniform(0.03, 0.6) * rows)
        cv2.rectangle(place, (x, y), (x + width, y + height), draw_tone(), -1 if rng.random() < 0.75 else 2)
    for _ in range(int(rng.integers(4, 14))):
        ends_x, ends_y = rng.uniform(0, columns, 2), rng.uniform(0, rows, 2)
        start, end = (int(ends_x[0]), int(ends_y[0])), (int(ends_x[1]), int(ends_y[1]))
        cv2.line(place, start, end, draw_tone(), int(rng.integers(1, 4)))
    return np.asarray(cv2.GaussianBlur(place, (0, 0), 0.8), dtype=np.uint8)
