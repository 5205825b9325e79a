"""What a network predicts for labelled images, and the loss and errors of such predictions."""

import math
from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import DataLoader, Dataset
from torchmetrics.functional.classification import multiclass_accuracy
from tqdm import tqdm


@torch.no_grad()
def predict(
    network: nn.Module,
    inputs: Dataset[tuple[Tensor, int]],
    accelerator: Accelerator,
    batch: int = 128,
    workers: int = 0,
) -> tuple[Tensor, Tensor]:
    """Log probabilities ``(N, classes)`` and labels ``(N,)`` of all ``inputs``, in order; crops are averaged.

    Processes share the work, and each gets all of the result. ``inputs`` are crops ``(crops, 3, H, W)``, or features of
    crops, several of an image, with a label.

    >>> data = [(torch.eye(3)[i].view(1, 3, 1, 1), i) for i in (0, 1, 1, 2)]
    >>> log_probability, labels = predict(nn.Flatten(), data, Accelerator())
    >>> log_probability.argmax(1).tolist(), labels.tolist()
    ([0, 1, 1, 2], [0, 1, 1, 2])
    """
    cuda = accelerator.device.type == "cuda"
    loader = accelerator.prepare(DataLoader(inputs, batch, num_workers=workers, pin_memory=cuda))
    training = network.training
    network.eval()
    found = []
    for crops, labels in tqdm(loader, "evaluate", leave=False, disable=not accelerator.is_main_process):
        with accelerator.autocast():
            logits = network(tree_map(lambda one: one.flatten(0, 1), crops))
        log_probability = logits.float().log_softmax(-1).unflatten(0, tree_leaves(crops)[0].shape[:2])
        found.append(accelerator.gather_for_metrics((mean_probability(log_probability.unbind(1)), labels)))
    network.train(training)
    log_probabilities, truth = zip(*found, strict=True)
    return torch.cat(log_probabilities), torch.cat(truth)


def mean_probability(log_probabilities: Sequence[Tensor]) -> Tensor:
    """The logarithm of the mean of probabilities, of crops or of an ensemble's members; all of one shape.

    >>> mean_probability([torch.tensor([0.0]), torch.tensor([-torch.inf])]).exp()
    tensor([0.5000])
    """
    return torch.stack(list(log_probabilities)).logsumexp(0) - math.log(len(log_probabilities))


def score(log_probability: Tensor, labels: Tensor) -> dict[str, float]:
    """``loss``, ``top1`` and ``top5`` error in per cent.

    >>> score(torch.tensor([[0.9, 0.1], [0.8, 0.2]]).log(), torch.tensor([0, 1]))["top1"]
    50.0
    """
    classes = log_probability.shape[1]
    right = {k: multiclass_accuracy(log_probability, labels, classes, "micro", min(k, classes)) for k in (1, 5)}
    errors = {f"top{k}": 100 * (1 - value.item()) for k, value in right.items()}
    return {"loss": nn.functional.nll_loss(log_probability, labels).item()} | errors
