"""Real networks, by every way to hand them to other tools: where the plain network goes, the gated one must go.

``python -m tests.deployment`` takes about an hour on one core; ``python -m tests.deployment export resnet50`` is of one
way and one network. It ends with an error if a gated network fails where the plain one does not.
"""

import copy
import sys
import time
import warnings

import timm
import torch
import torchvision

import se_inject
from se_inject.errors import first_line

from . import routes
from .networks import awake, images

NETWORKS = {
    "resnet18": torchvision.models.resnet18,
    "resnet50": torchvision.models.resnet50,
    "googlenet": lambda: torchvision.models.googlenet(init_weights=False, aux_logits=False),
    "mobilenet_v2": torchvision.models.mobilenet_v2,
    "convnext_tiny": torchvision.models.convnext_tiny,
    "resnetv2_50": lambda: timm.create_model("resnetv2_50"),
    "inception_resnet_v2": lambda: timm.create_model("inception_resnet_v2"),
    "convnext_atto": lambda: timm.create_model("convnext_atto"),
}
WAYS = {way.__name__: way for way in (*routes.EXACT, *routes.ROUNDED)}
SIZE = (2, 3, 128, 128)


def difference(way, model):
    """How far what a tool made is from the model, relative to the largest output."""
    made, x = way(copy.deepcopy(model), images(*SIZE)), images(*SIZE, seed=1)
    with torch.no_grad():
        expected = model(x)
        output = made(x)
        output = getattr(output, "logits", output)  # of a scripted GoogLeNet
        return float((output - expected).abs().max() / expected.abs().max())


def attempt(way, model):
    began = time.perf_counter()
    try:
        found = difference(way, model)
    except Exception as error:  # of whatever kind
        return None, first_line(error)[:100]
    return found, f"{found:.1e} in {time.perf_counter() - began:.0f} s"


def main(*chosen):
    """Try the chosen ways and networks, all if none of a kind is named."""
    unknown = set(chosen) - {*WAYS, *NETWORKS}
    if unknown:
        sys.exit(f"no way or network: {', '.join(sorted(unknown))}; there are {', '.join([*WAYS, *NETWORKS])}")
    warnings.simplefilter("ignore")
    ways = {name: WAYS[name] for name in chosen if name in WAYS} or WAYS
    networks = {name: NETWORKS[name] for name in chosen if name in NETWORKS} or NETWORKS
    failed = []
    for network, make in networks.items():
        torch.manual_seed(0)
        plain = awake(make()).eval()
        gated = awake(se_inject.apply(copy.deepcopy(plain)), strength=0.1)
        for name, way in ways.items():
            limit = 1e-4 if way in routes.EXACT else 0.1
            of_plain, how = attempt(way, plain)
            print(f"{network:20} {name:14} plain: {how}", end="", flush=True)
            if of_plain is None:
                print()
                continue
            of_gated, how = attempt(way, gated)
            print(f"; gated: {how}", flush=True)
            if of_gated is None or of_gated > max(limit, 2 * of_plain):
                failed.append(f"{network} by {name}")
    sys.exit(f"gated networks failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
