"""Ideal images of a classifier: for some of its classes, or for channels of its layers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.core.arguments import FUNCTION, LABEL, PROGRESS, SEED, checks, several, text, whole
from headstart.core.counts import counted
from headstart.core.errors import DataError, UnreadableImageError, UsageError, cannot_read
from headstart.core.progress import Shown, StageProgress, function_of, shows_progress, stage
from headstart.data.inputs import unlabelled_dataset
from headstart.data.load import decode
from headstart.data.sources import PathLike
from headstart.imagine.ascent import ascend
from headstart.imagine.canvas import Canvas, Planes, noise_canvas, photo_canvas
from headstart.imagine.judges import Judgement, judge_for, judgements
from headstart.imagine.preset import Preset, canvas_size, find_preset
from headstart.imagine.target import Target, channel_target, class_target, values_of
from headstart.imagine.window import Window, whole_window
from headstart.model.classifier import Classifier
from headstart.model.given import CLASSIFIER

Pictures = NDArray[np.uint8]  # (N, height, width, 3)
Watch = Callable[[int, Pictures], None]  # step, the images so far
TOGETHER = 8  # images that are changed at a time
WATCHED = 4  # steps between two calls of a `Watch`
FRAMES = 25  # pictures that are kept on the way, beside the first
NOISE, MEAN = "noise", "mean"  # where to begin, beside a photo


@dataclass(frozen=True, eq=False)
class IdealImage:
    """An image for which one output of a network is large."""

    name: str  # of the class; or "LAYER channel K"
    pixels: NDArray[np.uint8]  # (size, size, 3): exactly what the network takes
    probability: float | None  # that the network itself gives the class; None of a channel
    values: tuple[float, float]  # the output, a logit or the mean of a channel, in the beginning and in the end
    frames: Pictures  # the way to it: the first is where it began, the last is ``pixels``
    steps: tuple[int, ...]  # of each frame
    unknown: bool = False  # whether it is unlike the training photos: `predict` may say "unknown"
    judges: tuple[Judgement, ...] = ()  # what other networks see on it
    seconds: float = 0.0  # that it took, as a share of those that were made with it


@checks(
    model=CLASSIFIER,
    classes=several(LABEL, "names of classes"),
    layer=text("the name of a layer"),
    channels=several(whole(), "whole numbers, of channels"),
    seed=SEED,
    judges=several(CLASSIFIER, "classifiers of photos"),
    watch=FUNCTION,
    progress=PROGRESS,
)
@shows_progress
def ideal_images(
    model: Classifier,
    classes: Sequence[object] | str | int = (),
    *,
    layer: str | None = None,
    channels: Sequence[int] | int = (),
    preset: str | Preset = "best",
    steps: int | None = None,
    seed: int = 0,
    start: str | PathLike | NDArray[np.generic] | Image.Image = NOISE,
    judges: Sequence[Classifier] | Classifier | None = None,
    watch: Watch | None = None,
    progress: Shown = True,
) -> list[IdealImage]:
    """Change images by gradient ascent until the network is sure of a class, or a channel of a layer is large.

    Args:
        model: its network gives the gradients.
        classes: names of its classes, or one; an image each.
        layer: a layer of the network, with ``channels``: of each the mean is made large.
        channels: numbers of its channels, from 0 on, or one; an image each.
        preset: "best": frequencies of the image are changed (Olah et al. 2017), and the network sees random windows of
            it with noise; "lesson": pixels are changed, with a loss for the image's total variation; or settings.
        steps: gradient steps, in place of the preset's.
        seed: of the noise and the windows. An image depends on it, and not on the others beside it.
        start: "noise", "mean" for the network's mean colour, or one photo, of which the middle square is taken.
        judges: classifiers, or one, that are asked what they see on the images; None: an ImageNet network of another
            family, if the weights of one are on this machine.
        watch: called after every `WATCHED` steps with the step and the images so far, (N, size, size, 3) in bytes.
        progress: as for `fit`; called with ("steps", done, of how many).

    Raises:
        UsageError: an unknown class, layer, channel or preset, nothing to make, or no photo to start from.
    """
    settings, report = find_preset(preset, steps), stage(function_of(progress), "steps")
    targets = targets_of(model, cast("Sequence[object]", classes), layer, cast("Sequence[int]", channels))
    begin = beginning(model, settings, start)
    asked = cast("Sequence[Classifier] | None", judges)
    if asked is None:
        asked = [found for found in (judge_for(model),) if found]
    layers = [list(of_layer) for _, of_layer in groupby(targets, lambda target: target.layer)]
    batches = [group[first : first + TOGETHER] for group in layers for first in range(0, len(group), TOGETHER)]
    made: list[IdealImage] = []
    for number, batch in enumerate(batches):
        told = None if report is None else partial(_told, report, number, len(batches))
        rng = np.random.default_rng(seed)  # anew, so that an image is the same in whichever batch it is made
        made += _together(model, batch, settings, begin(len(batch), rng), rng, told, watch)
    return _judged(made, asked)


def targets_of(
    model: Classifier, classes: Sequence[object], layer: str | None, channels: Sequence[int]
) -> list[Target]:
    """What the images are to be made for, checked; each once.

    Raises:
        UsageError: an unknown class, layer or channel, or nothing at all.
    """
    found = [class_target(name, model.classes) for name in classes]
    if (layer is None) != (not channels):
        raise UsageError("A layer and the numbers of its channels go together: --layer NAME --channel NUMBER")
    if layer is not None:
        found += [channel_target(layer, channel, model.network) for channel in channels]
    if not found:
        raise UsageError("Nothing to make: name a class, --class NAME, or a channel, --layer NAME --channel NUMBER")
    return list(dict.fromkeys(found))


def beginning(
    model: Classifier, preset: Preset, start: str | PathLike | NDArray[np.generic] | Image.Image
) -> Callable[[int, np.random.Generator], Canvas]:
    """A function that makes a canvas of so many images, all of which begin as ``start`` says.

    Raises:
        UsageError: not one photo.
        DataError: it cannot be read.
    """
    size = canvas_size(preset, model.spec.size)
    if isinstance(start, str) and start == NOISE:
        return lambda count, rng: noise_canvas(preset, size, count, rng)
    if isinstance(start, str) and start == MEAN:
        plain = np.tile(np.array(model.spec.mean, np.float32)[:, None, None], (1, 1, size, size))
        return lambda count, rng: photo_canvas(preset, plain, count)
    found = unlabelled_dataset(start)
    if len(found) != 1:
        received = counted(len(found), "image")
        raise UsageError(f"Expected one photo to begin with, or noise or mean. Received: {received}.")
    try:
        pixels = decode(found.read(0), replace(model.spec, size=size, crop=1.0))
    except UnreadableImageError as error:
        raise DataError(f"'{found.samples[0].name}' cannot be read: {error}.") from error
    except OSError as error:
        raise cannot_read(found.samples[0].name, error) from error
    photo = pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255
    return lambda count, rng: photo_canvas(preset, photo, count)


def _together(
    model: Classifier,
    targets: Sequence[Target],
    preset: Preset,
    canvas: Canvas,
    rng: np.random.Generator,
    report: StageProgress | None,
    watch: Watch | None,
) -> list[IdealImage]:
    """The images for targets of one layer."""
    begun, network = time.perf_counter(), model.network
    shown = whole_window(canvas.images().shape[-1], model.spec.size)
    wanted = sorted({round(step) for step in np.linspace(0, preset.steps, FRAMES + 1)})
    frames = [_as_bytes(shown, canvas.images())]
    for step, images in enumerate(ascend(network, canvas, targets, preset, rng), 1):
        if step in wanted:
            frames.append(_as_bytes(shown, images))
        if watch is not None and step % WATCHED == 0:
            watch(step, _as_bytes(shown, images))
        if report is not None:
            report(step, preset.steps)
    before, after = (values_of(network.forward(each, targets[0].layer), targets) for each in (frames[0], frames[-1]))
    seconds = (time.perf_counter() - begun) / len(targets)
    chances, unknown = model.predict_proba(frames[-1], crop=False), model.unlike_training(frames[-1])
    return [
        IdealImage(
            name=target.name,
            pixels=frames[-1][row],
            probability=float(chances[row, target.channel]) if target.is_class else None,
            values=(float(before[row]), float(after[row])),
            frames=np.stack([frame[row] for frame in frames]),
            steps=tuple(wanted),
            unknown=bool(unknown[row]),
            seconds=seconds,
        )
        for row, target in enumerate(targets)
    ]


def _as_bytes(shown: Window, images: Planes) -> Pictures:
    """What the network takes of a canvas, in 8 bits."""
    pictures: Pictures = (np.clip(shown.of(images), 0, 1) * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pictures)


def _judged(images: Sequence[IdealImage], judges: Sequence[Classifier]) -> list[IdealImage]:
    """The images of classes with what each judge says of them."""
    found = list(images)
    rows = [row for row, image in enumerate(images) if image.probability is not None]
    pixels, classes = [images[row].pixels for row in rows], [images[row].name for row in rows]
    for judge in judges:
        for row, said in zip(rows, judgements(judge, pixels, classes), strict=True):
            found[row] = replace(found[row], judges=(*found[row].judges, said))
    return found


def _told(report: StageProgress, batch: int, batches: int, done: int, steps: int) -> None:
    """Tell the steps of one batch as some of those of all."""
    report(batch * steps + done, batches * steps)
