"""Every network of the paper, by name, and any other of timm or torchvision."""

from .registry import NETWORKS, get

__all__ = ["NETWORKS", "get"]
