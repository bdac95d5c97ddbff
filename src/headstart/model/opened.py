"""A model of photos by what people type: the folder of one, or the name of a network with its own head."""

from __future__ import annotations

from headstart.backbones.published import BACKBONES
from headstart.core.errors import UsageError
from headstart.core.types import Normalisation
from headstart.engines.names import framework_of
from headstart.model.bundle import is_bundle, load
from headstart.model.classifier import Classifier
from headstart.model.mistaken import no_model
from headstart.model.pretrained import pretrained
from headstart.model.tabular_classifier import is_tabular_model


def open_model(
    model: str,
    weights: str | None = None,
    *,
    engine: str = "auto",
    precision: str = "auto",
    device: str = "auto",
    spec: Normalisation | None = None,
) -> Classifier:
    """A bundle, or a backbone with its own head.

    Raises:
        UsageError: there is neither, or it is a model of rows; or weights or pixels for a model that has its own.
        CheckError: the bundle is damaged.
    """
    if is_tabular_model(model):
        raise UsageError(
            f"'{model}' is a model of rows of numbers. What works for it: predict, evaluate and show; from Python "
            "headstart.load_rows(PATH), whose weights are plain NumPy arrays."
        )
    if is_bundle(model):
        if weights is not None:
            raise UsageError(f"'{model}' is a saved model and has its own weights: --weights is for backbones.")
        if spec:
            raise UsageError(f"'{model}' is a saved model and has its own pixels: --mean and --std are for backbones.")
        return load(model, engine=engine, precision=precision, device=device)
    if model in BACKBONES or framework_of(model):
        return pretrained(model, weights, spec=spec, engine=engine, precision=precision, device=device)
    raise no_model(model, networks=True)
