"""The script people write: DataLoader, torchvision, eager timm features, scikit-learn's logistic regression."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import timm
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader
from torchvision import datasets, transforms


def main() -> None:
    """Arguments: the folder with train/ and test/, and the weights."""
    data, weights = Path(sys.argv[1]), sys.argv[2]
    transform = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    model = timm.create_model("mobilenetv2_100", pad_type="same", bn_eps=1e-3, num_classes=1000)
    model.load_state_dict(load_file(weights))
    model.reset_classifier(0)
    model.eval()

    def features(part: str) -> tuple[np.ndarray, np.ndarray]:
        loader = DataLoader(datasets.ImageFolder(data / part, transform), batch_size=32, num_workers=2)
        with torch.no_grad():
            pairs = [(model(images).numpy(), labels.numpy()) for images, labels in loader]
        return np.concatenate([x for x, _ in pairs]), np.concatenate([y for _, y in pairs])

    head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    head.fit(*features("train"))
    print(json.dumps({"accuracy": head.score(*features("test"))}))


if __name__ == "__main__":
    main()
