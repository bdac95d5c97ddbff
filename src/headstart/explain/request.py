"""What is to be explained, and how: checked before any work is done."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.backbones.blueprint import INPUT
from headstart.backbones.ops import Shape
from headstart.core.errors import UsageError, did_you_mean
from headstart.engines.protocol import Network, check_known, check_layers
from headstart.explain.closed_form import LinearHead, linear_head
from headstart.explain.gradients import with_gradients
from headstart.model.classifier import Classifier

METHODS = ("auto", "hirescam", "gradcam", "gradient", "integrated")
OF_LAYERS = METHODS[:3]


@dataclass(frozen=True)
class Plan:
    """A checked request."""

    method: str  # "auto" resolved
    index: int | None  # of the class; None: the most probable
    head: LinearHead | None  # for the closed form
    layer: str  # for what is no closed form, and not of the pixels
    at: str | None


def plan_of(classifier: Classifier, label: object = None, *, method: str = "auto", at: str | None = None) -> Plan:
    """Check a request before any work is done for it.

    Raises:
        UsageError: see `explain_photos`.
    """
    check_known("method of explanation", method, METHODS)
    index = None if label is None else class_index(classifier, label)
    network = classifier.network
    if method not in OF_LAYERS:
        if at is not None:
            raise UsageError(f"The method '{method}' explains the pixels, and takes no layer. Received: '{at}'.")
        with_gradients(network)
        return Plan(method, index, None, "", None)
    head = linear_head(classifier.blueprint)
    if at is not None:
        check_spatial(network, at)
    layer = at or (head.layers[0] if head else last_spatial(network))
    if head and at not in (None, *head.layers[: len(head.layers) == 1]):
        head = None
    if head is None:
        with_gradients(network)
    return Plan("hirescam" if method == "auto" else method, index, head, layer, at)


def class_index(classifier: Classifier, label: object) -> int:
    """The place of a class.

    Raises:
        UsageError: there is none of this name; the nearest are named.
    """
    name = str(label)
    if name in classifier.classes:
        return classifier.classes.index(name)
    holding = [known for known in classifier.classes if name and name.lower() in known.lower()]
    near = f"Did you mean {' or '.join(holding[:3])}?" if holding else did_you_mean(name, classifier.classes)
    raise UsageError(f"The model has no class '{name}'. {near}")


def check_spatial(network: Network, layer: str) -> None:
    """Refuse a layer that is not there, or has no places."""
    check_layers(network.name, (layer,), network.layers)
    if layer == INPUT or not _has_places(network.shape(layer)):
        places = spatial_layers(network)
        near = f"Among its layers with places: {', '.join(places[-4:])}." if places else ""
        raise UsageError(f"The layer '{layer}' of '{network.name}' has no places on the photo (height × width). {near}")


def spatial_layers(network: Network) -> list[str]:
    """The layers with more than one place, in order, without the input."""
    return [name for name in network.layers if name != INPUT and _has_places(network.shape(name))]


def last_spatial(network: Network) -> str:
    """The last layer with more than one place.

    Raises:
        UsageError: the network has none.
    """
    places = spatial_layers(network)
    if not places:
        raise UsageError(
            f"'{network.name}' has no layer with places on the photo (height × width), so there is no class "
            "activation. What works for it: --method gradient or --method integrated"
        )
    return places[-1]


def _has_places(shape: Shape) -> bool:
    """Whether a layer is (channels, height, width) of the square photo; heads × tokens × numbers, say, are not."""
    return len(shape) == 3 and shape[1] == shape[2] > 1
