"""Train a small ResNet on scikit-learn's digits, give it gates, and train the gates alone.

Offline and on the CPU: about a minute on two cores. Run ``python examples/digits.py``.
"""

import argparse
import copy

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tabulate import tabulate
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

import se_inject


class BasicBlock(nn.Module):
    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU()
        self.shortcut = nn.Conv2d(channels, out, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + self.shortcut(x))


def small_resnet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 1, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        BasicBlock(16, 16, 1),
        BasicBlock(16, 32, 2),
        BasicBlock(32, 64, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def load_data() -> tuple[TensorDataset, TensorDataset]:
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(digits.target)
    train, test = train_test_split(range(len(labels)), test_size=0.5, random_state=0, stratify=labels)
    return TensorDataset(images[train], labels[train]), TensorDataset(images[test], labels[test])


def fit(model: nn.Module, parameters: list[nn.Parameter], data: TensorDataset, epochs: int, what: str) -> None:
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in tqdm(range(epochs), desc=what):
        model.train()
        for images, labels in DataLoader(data, batch_size=64, shuffle=True):
            shift = torch.randint(-1, 2, (2,)).tolist()
            optimizer.zero_grad()
            cross_entropy(model(images.roll(shift, (2, 3))), labels).backward()
            optimizer.step()
        schedule.step()


@torch.no_grad()
def logits(model: nn.Module, data: TensorDataset) -> Tensor:
    model.eval()
    output: Tensor = model(data.tensors[0])
    return output


def row(name: str, model: nn.Module, data: TensorDataset) -> list[str]:
    accuracy = (logits(model, data).argmax(1) == data.tensors[1]).double().mean().item()
    parameters = sum(p.numel() for p in model.parameters())
    with FlopCounterMode(display=False) as counter:
        logits(model, TensorDataset(data.tensors[0][:1]))
    return [name, f"{parameters:,}", f"{counter.get_total_flops():,}", f"{100 * accuracy:.2f} %"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=30, help="epochs for the network, and as many for the gates")
    epochs = parser.parse_args().epochs

    torch.manual_seed(0)
    train, test = load_data()
    model = small_resnet()
    fit(model, list(model.parameters()), train, epochs, "train the network")
    plain, before = copy.deepcopy(model), logits(model, test)

    print(se_inject.find_sites(model))
    se_inject.apply(model, reduction=4)
    print(f"output unchanged by the gates, to the bit: {torch.equal(logits(model, test), before)}")

    se_inject.freeze_backbone(model)
    fit(model, se_inject.gate_parameters(model), train, epochs, "train the gates")

    before_row = row("before: plain", plain, test)
    fit(plain, list(plain.parameters()), train, epochs, "train the plain network as long")
    control_row = row("plain, trained as long", plain, test)

    rows = [before_row, row("after: with trained gates", model, test), control_row]
    print(tabulate(rows, headers=["network", "parameters", "FLOPs per image", "test accuracy"], stralign="right"))


if __name__ == "__main__":
    main()
