"""A finished run on a toy that reads photographs, and a photograph."""

from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from distill3d.config import DistillConfig
from distill3d.plugins import Offer, registry
from distill3d.recipe import distill


@contextmanager
def photo_toy_is_installed():
    with pytest.MonkeyPatch.context() as patch:
        offers = registry().offers["backbone"]
        for name, load in (("toy", "load_toy"), ("photo-toy", "load_photo_toy")):
            patch.setitem(offers, name, Offer(name, f"tests.toys:{load}", "tests"))
        yield


def a_run(folder, backbone="photo-toy", **settings):
    return distill(DistillConfig(style="zombie", backbone=backbone, steps=2, lr=0.05, **settings), folder)


def a_photo(path, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path
