"""Give a timm ConvNeXt gates; and give timm's plain ResNet-50 those of its published twin, SE-ResNet-50."""

import timm
import torch

import se_inject


def main() -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 3, 64, 64)

    convnext = timm.create_model("convnext_atto").eval()  # pretrained=True works the same
    before = convnext(images)
    se_inject.apply(convnext, reduction=16, where="stages.[23].*")
    print("gates:", ", ".join(name for name, _ in se_inject.gates(convnext)))
    print("same output to the bit:", torch.equal(convnext(images), before))

    # Published weights mean the plain sigmoid, so the gates take the standard form.
    published = timm.create_model("seresnet50", zero_init_last=False).eval()
    ours = se_inject.apply(timm.create_model("resnet50"), reduction=16, init="standard").eval()
    ours.load_state_dict(published.state_dict(), strict=True)
    difference = (ours(images) - published(images)).abs().max().item()
    print(f"largest difference from timm's seresnet50 with the same weights: {difference:.1e}")


if __name__ == "__main__":
    main()
