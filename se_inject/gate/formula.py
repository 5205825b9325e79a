"""The gate's formula on tensors, forward and backward, and in operations that autograd knows."""

import torch
from torch import Tensor
from torch.nn import functional

from .affine import spread


def excitation(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The squeezed ``x``, the hidden values and the sigmoids, each ``(N, C)``, of ``x`` of shape ``(N, C, *)``.

    As the gate itself computes them, so that outputs are the same to the bit as without gradients.

    >>> layers = torch.ones(4, 8, 1, 1), torch.zeros(4), torch.zeros(8, 4, 1, 1), torch.zeros(8)
    >>> [values.shape[1] for values in excitation(torch.ones(1, 8, 5), *layers)]
    [8, 4, 8]
    """
    squeezed = x.mean((2, 3), keepdim=True) if x.dim() == 4 else x.flatten(2).mean(2)[:, :, None, None]
    hidden = torch.relu(functional.conv2d(squeezed, w1.to(x.dtype), b1.to(x.dtype)))
    excited = torch.sigmoid(functional.conv2d(hidden, w2.to(x.dtype), b2.to(x.dtype)))
    return squeezed.flatten(1), hidden.flatten(1), excited.flatten(1)


def gradients_of_layers(
    of_fc2: Tensor, squeezed: Tensor, hidden: Tensor, w1: Tensor, w2: Tensor, positions: int
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The gradients of ``x`` through its mean, ``(N, C)``, the same at each position, and of weights and biases.

    In few operations, which small features take longer to call than to do.

    >>> layers = torch.ones(4, 8, 1, 1), torch.ones(8, 4, 1, 1)
    >>> of_mean, of_weights = gradients_of_layers(torch.ones(1, 8), torch.ones(1, 8), torch.ones(1, 4), *layers, 5)
    >>> of_mean[0, 0], of_weights[1]
    (tensor(6.4000), tensor([8., 8., 8., 8.]))
    """
    exact = of_fc2.dtype  # of float32 where the feature is of half precision
    squeezed, hidden = squeezed.to(exact), hidden.to(exact)
    of_hidden = of_fc2 @ w2.flatten(1).to(exact)
    of_fc1 = torch.ops.aten.threshold_backward(of_hidden, hidden, 0)
    of_mean = torch.addmm(squeezed, of_fc1, w1.flatten(1).to(exact), beta=0, alpha=1 / positions)
    of_w1, of_w2 = of_fc1.T @ squeezed, of_fc2.T @ hidden
    of_weights = of_w1.view(w1.shape), of_fc1.sum(0), of_w2.view(w2.shape), of_fc2.sum(0)
    return of_mean, tuple(of_weight.to(w1.dtype) for of_weight in of_weights)


def in_operations(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, *, factor: float) -> Tensor:
    """The gate in operations that autograd knows.

    >>> layers = torch.ones(4, 8, 1, 1), torch.zeros(4), torch.zeros(8, 4, 1, 1), torch.zeros(8)
    >>> in_operations(torch.ones(1, 8, 5), *layers, factor=2.0).unique()
    tensor([1.])
    """
    w1, b1, w2, b2 = (weight.to(x.dtype) for weight in (w1, b1, w2, b2))
    hidden = torch.relu(functional.linear(x.flatten(2).mean(2), w1.flatten(1), b1))
    return x * spread(factor * torch.sigmoid(functional.linear(hidden, w2.flatten(1), b2)), x)
