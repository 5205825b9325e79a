"""Images: data sets, transforms, sampling, and files that cannot be read."""

from .datasets import Augmented, Data, Images, open_data

__all__ = ["Augmented", "Data", "Images", "open_data"]
