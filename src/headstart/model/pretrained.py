"""A network with the head that it was published with, as a classifier."""

from __future__ import annotations

from headstart.backbones.blueprint import LOGITS
from headstart.core.arguments import DEVICE, ENGINE, PATH, PIXELS, PRECISION, PROGRESS, checks
from headstart.core.progress import Shown, function_of, shows_progress
from headstart.core.types import SPEC, ImageSpec, Normalisation
from headstart.data.sources import PathLike
from headstart.engines.names import check_running
from headstart.engines.registry import open_backbone
from headstart.engines.sound import check_sound
from headstart.model.classifier import Classifier
from headstart.model.records import FitRecord


@checks(
    weights=PATH,
    pixels=PIXELS,
    spec=SPEC,
    engine=ENGINE,
    precision=PRECISION,
    device=DEVICE,
    progress=PROGRESS,
)
@shows_progress
def pretrained(
    backbone: str,
    weights: PathLike | None = None,
    *,
    pixels: int | None = None,
    spec: ImageSpec | Normalisation | None = None,
    engine: str = "auto",
    precision: str = "auto",
    device: str = "auto",
    progress: Shown = True,
) -> Classifier:
    """A catalogued network, "timm/NAME" or "keras/NAME", with its own head, mostly for ImageNet's thousand classes.

    It has no images to try bf16 or int8 on, so "auto" is fp32. ``device`` and ``progress`` are as for `fit`; what is
    shown is the download of weights.
    """
    check_running(engine, precision, device)
    found, module = open_backbone(backbone, weights, pixels, head=True, spec=spec, progress=function_of(progress))
    classifier = Classifier(
        blueprint=found.blueprint,
        weights=found.weights,
        spec=found.spec,
        classes=found.backbone.classes(),
        engine=engine,
        precision="fp32" if precision == "auto" else precision,
        device=device,
        record=FitRecord(backbone=found.backbone.name, assumed=found.assumed or None),
        module=module,
    )
    if weights is not None:
        check_sound(classifier.network, LOGITS)
    return classifier
