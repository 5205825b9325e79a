"""What a training comes to: the scores of its logits, and its record."""

import math
import time

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from ..training.metrics import score
from .images import Images
from .records import Job, Record


def scores(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Of logits ``(N, classes)``: top-1 error and expected calibration error in per cent, and the loss.

    The latter two are NaN, and the error is 100, where a logit is no number. The calibration error has 15 bins.
    Source: Guo et al., "On Calibration of Modern Neural Networks", 2017, section 2.

    >>> scores(torch.tensor([[9.0, 0.0], [9.0, 0.0]]), torch.tensor([0, 1]))["top1"]
    50.0
    """
    logits = logits.float()
    if not logits.isfinite().all():
        return {"top1": 100.0, "loss": math.nan, "ece": math.nan}
    error = multiclass_calibration_error(logits.softmax(1), labels, logits.shape[1], n_bins=15)
    return score(logits.log_softmax(1), labels) | {"ece": 100 * float(error)}


def by_domain(logits: Tensor, images: Images) -> dict[str, float]:
    """Of logits ``(N, classes)``: the top-1 error of each domain of the images, by name; nothing where there is one."""
    if len(images.kinds) < 2:
        return {}
    masks = {kind.name: images.domains == i for i, kind in enumerate(images.kinds)}
    return {name: scores(logits[mask], images.labels[mask])["top1"] for name, mask in masks.items()}


def record(
    job: Job,
    held_out: dict[str, float],
    test: dict[str, float],
    corrupted: dict[str, float],
    domains: dict[str, float],
    changed: tuple[int, int],
    step: float,
    started: float,
    device: torch.device,
) -> Record:
    """The record of a training that began at the time ``started`` and ends now, from the ``scores`` of its images."""
    diverged = not math.isfinite(test["loss"])
    return Record(
        job,
        held_out=held_out["top1"],
        top1=test["top1"],
        loss=None if diverged else test["loss"],
        ece=None if diverged else test["ece"],
        corrupted=corrupted,
        parameters=changed[0],
        stored=changed[1],
        step=step,
        seconds=time.monotonic() - started,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        torch=torch.__version__,
        domains=domains,
    )
