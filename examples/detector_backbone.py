"""Gate the last two stages of a detector's backbone; its heads stay as they are."""

import torch
from torchvision.models.detection import fasterrcnn_resnet50_fpn

import se_inject


def main() -> None:
    torch.manual_seed(0)
    detector = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, min_size=128, max_size=128).eval()
    image = [torch.rand(3, 128, 128)]
    with torch.no_grad():
        before = detector(image)[0]["boxes"]

    # The detector's outer modules work on lists of images and cannot hold a gate; the table says so.
    print(se_inject.find_sites(detector, where="backbone.body.layer[34].*"))
    se_inject.apply(detector, reduction=16, where="backbone.body.layer[34].*")
    with torch.no_grad():
        print("same boxes to the bit:", torch.equal(detector(image)[0]["boxes"], before))


if __name__ == "__main__":
    main()
