"""The steps of augmentation as transforms of albumentations, which drew and applied them before this package did."""

from __future__ import annotations

import math
import random

import albumentations as A
import cv2
import numpy as np

from vireid_lightning.data.images.augmentation import Augmentation


class Exchange(A.ImageOnlyTransform):
    def get_params(self):
        return {"channel": self.py_random.randrange(3)}

    def apply(self, img, channel, **params):
        return np.repeat(img[:, :, channel : channel + 1], 3, axis=2)


class Erase(A.Erasing):
    def get_params_dependent_on_data(self, params, data):
        height, width = params["shape"][:2]
        for _ in range(10):
            area = height * width * self.py_random.uniform(*self.scale)
            ratio = math.exp(self.py_random.uniform(*(math.log(limit) for limit in self.ratio)))
            rows, columns = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < rows < height and 0 < columns < width:
                top, left = self.py_random.randint(0, height - rows), self.py_random.randint(0, width - columns)
                return {"holes": np.array([[left, top, left + columns, top + rows]], dtype=np.int32), "seed": 0}
        return {"holes": np.empty((0, 4), dtype=np.int32), "seed": 0}


def augment_by_albumentations(settings: Augmentation, image, seed):
    """Return the augmented image and the mask of erased pixels."""
    size, fill = image.shape[:2], settings.channel_erasing_fill
    rectangle = {"scale": settings.erasing_area, "ratio": settings.erasing_ratio}
    colours = {name: getattr(settings, name) for name in ("brightness", "contrast", "saturation")}
    steps = [A.HorizontalFlip(p=settings.flip)]
    if settings.pad:
        steps.append(A.Pad(settings.pad, fill=settings.pad_fill, border_mode=cv2.BORDER_CONSTANT, p=1))
        steps.append(A.RandomCrop(*size, p=1))
    steps.append(A.ColorJitter(**colours, hue=0, p=settings.jitter))
    steps.append(A.ToGray(p=settings.grayscale))
    steps.append(Exchange(p=settings.channel_exchange))
    steps.append(Erase(**rectangle, fill=fill, p=settings.channel_erasing))
    steps.append(Erase(**rectangle, fill=0, fill_mask=1, p=settings.erasing))
    pipeline = A.Compose(steps)
    pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
    result = pipeline(image=image, mask=np.zeros(size, dtype=np.uint8))
    return result["image"], result["mask"].astype(bool)
