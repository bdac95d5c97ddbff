"""A model of photos by what people type: the folder of one, or the name of a network with its own head.

What puts a model together is imported late: the network is compiled meanwhile, which takes longer.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.backbones.blueprint import LOGITS, Blueprint
from headstart.core.arguments import DEVICE, ENGINE, PATH, PRECISION, checks
from headstart.core.errors import HeadstartError, UsageError
from headstart.core.types import Normalisation
from headstart.engines.fast import start_beside
from headstart.engines.names import HOME, check_running, framework_of, resolve_engine
from headstart.engines.protocol import check_module
from headstart.engines.registry import check_live, check_present, get_engine
from headstart.model import stored

if TYPE_CHECKING:
    from headstart.model.classifier import Classifier


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
    if stored.is_tabular_model(model):
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
    from headstart.backbones.published import BACKBONES

    if model in BACKBONES or framework_of(model):
        from headstart.model.pretrained import pretrained

        return pretrained(model, weights, spec=spec, engine=engine, precision=precision, device=device)
    from headstart.model.mistaken import no_model

    raise no_model(model, networks=True)


def is_bundle(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is a bundle by the look of it."""
    return stored.is_stored(path)


@checks(path=PATH, engine=ENGINE, precision=PRECISION, device=DEVICE)
def load(
    path: str | os.PathLike[str],
    *,
    engine: str = "auto",
    precision: str = "auto",
    device: str = "auto",
    module: object | None = None,
) -> Classifier:
    """Open a bundle, and refuse it unless its golden images get the answers that they got when it was saved.

    ``engine``, ``precision`` and ``device`` are as for `fit`. ``module`` is the `torch.nn.Module` that the classifier
    was fitted on, where it was one of your own: a bundle holds weights, never code.

    Raises:
        UsageError: there is no bundle at ``path``, or it is from a newer version; or no such device.
        CheckError: a file of it is missing or was altered, or the golden images get other answers.
    """
    folder = Path(path)
    if not stored.has_config(folder):
        from headstart.model.mistaken import no_model

        raise no_model(str(path), networks=False)
    if engine in ("auto", "fast") and device in HOME and module is None:
        start_beside()
    found = stored.read(folder)
    config = found.config
    if config.get("kind") == stored.ROWS:
        raise UsageError(
            f"'{folder}' is a model of rows of numbers, not of photos. Ask it with: headstart predict MODEL ROWS.csv"
        )
    check_running(engine, precision, device)
    runs_on = _check_runnable(config, engine, device, module)
    with stored.assembling(folder):
        if precision == "auto" and runs_on == "fast":  # the others compute in fp32 unless told otherwise
            precision = config["precision"]
        return _assembled(found, {"engine": engine, "precision": precision, "device": device, "module": module})


def _check_runnable(config: Mapping[str, Any], engine: str, device: str, module: object | None) -> str:
    """The engine that is to run the network, "" if the config is damaged, which putting it together will say."""
    try:
        blueprint = Blueprint.from_json(config["blueprint"])
    except (HeadstartError, KeyError):
        return ""
    runs_on = resolve_engine(engine, blueprint, device)
    check_module(blueprint, module)
    check_present(runs_on, device)
    if module is not None:
        check_live(module, runs_on)
    return runs_on


def _assembled(found: stored.Stored, running: Mapping[str, Any]) -> Classifier:
    """The classifier, its golden images replayed.

    Args:
        running: the arguments of `Classifier` that say on what it computes.
    """
    model, golden, spec = found.arrays(stored.MODEL), found.arrays(stored.GOLDEN), stored.read_spec(found.config)
    blueprint, weights = stored.read_network(found.config, model)
    precision, device, module = (running[name] for name in ("precision", "device", "module"))
    network = get_engine(running["engine"], blueprint, weights, spec, precision, device, module=module)
    # what `bundle.preflight` will run
    replayed_by = [network] if network.precision != "int8" else [network, network.at_precision("fp32")]
    for each in replayed_by:
        each.compile_beside(len(golden["logits"]), (LOGITS, blueprint[LOGITS].inputs[0]))
    from headstart.model.bundle import classifier_of, preflight

    parts = {"blueprint": blueprint, "weights": weights, "spec": spec, "running": network}
    classifier = classifier_of(found.config, model, golden, {**parts, **running})
    preflight(classifier, str(found.folder))
    return classifier
