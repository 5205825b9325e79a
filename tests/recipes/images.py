"""A small tree of images."""

import numpy as np
from PIL import Image


def write_images(root, train=6, val=2):
    """Each of three classes has its own grey; so many images of each to train and to validate on. Returns ``root``."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for name, grey in (("ant", 40), ("bee", 120), ("cat", 210)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = np.clip(grey + rng.integers(-20, 20, (40, 36, 3)), 0, 255).astype("uint8")
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root
