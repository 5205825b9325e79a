"""Turn a torchvision ResNet-50 into SE-ResNet-50 and train its gates for a few steps.

Pass ``--pretrained`` to download ImageNet weights; without it the weights are random and nothing is downloaded.
"""

import argparse

import torch
import torchvision

import se_inject


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pretrained", action="store_true")
    weights = torchvision.models.ResNet50_Weights.DEFAULT if parser.parse_args().pretrained else None

    torch.manual_seed(0)
    model = torchvision.models.resnet50(weights=weights).eval()
    images = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        before = model(images)

    print(se_inject.find_sites(model))
    se_inject.apply(model, reduction=16)
    with torch.no_grad():
        print("same output to the bit:", torch.equal(model(images), before))

    se_inject.freeze_backbone(model)
    optimizer = torch.optim.SGD(se_inject.gate_parameters(model), lr=0.1, momentum=0.9)
    model.train()
    for step in range(3):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images), torch.arange(4))
        loss.backward()
        optimizer.step()
        print(f"step {step}: loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
