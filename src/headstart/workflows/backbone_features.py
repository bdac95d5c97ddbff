"""A backbone opened, put on an engine, and run over a data set: what `fit`, `compare` and `finetune` begin with."""

from __future__ import annotations

from dataclasses import dataclass, replace

from headstart.backbones.catalogue import Pretrained
from headstart.backbones.weights import weights_digest
from headstart.core.arguments import DEVICE, ENGINE, PRECISION, PROGRESS, SEED, YES_NO, text
from headstart.core.progress import Progress, StageProgress
from headstart.core.types import ImageDataset, ImageSpec, Normalisation
from headstart.data.pixels import Levels
from headstart.data.sources import PathLike
from headstart.data.split import HELD_OUT, HOLDOUT
from headstart.engines.names import check_running
from headstart.engines.protocol import Network
from headstart.engines.registry import get_engine, open_backbone
from headstart.learn.features import Features, extract
from headstart.learn.heads import check_names

RULES = {  # of the arguments that `fit` and `compare` share
    "head": text("lda or ridge"),
    "prior": text("flat or empirical"),
    "holdout": HELD_OUT,
    "seed": SEED,
    "engine": ENGINE,
    "precision": PRECISION,
    "device": DEVICE,
    "cache": YES_NO,
    "progress": PROGRESS,
}


@dataclass(frozen=True)
class FitSettings:
    """The settings of a fit beside its backbone; see `fit`."""

    head: str = "lda"
    prior: str = "flat"
    holdout: float = HOLDOUT
    seed: int = 0
    engine: str = "auto"
    precision: str = "auto"
    cache: bool = True
    device: str = "auto"
    diagnose: bool = False

    def __post_init__(self) -> None:
        """Refuse what can be known to be wrong before any image is looked at."""
        check_names(self.head, self.prior)
        check_running(self.engine, self.precision, self.device)


@dataclass(frozen=True)
class FrozenBackbone:
    """A network without its head, on an engine."""

    pretrained: Pretrained
    network: Network
    module: object | None = None  # the live one, where the backbone is a module

    @classmethod
    def open(
        cls,
        backbone: object,
        settings: FitSettings,
        levels: Levels | None,
        *,
        weights: PathLike | None = None,
        pixels: int | None = None,
        spec: ImageSpec | Normalisation | None = None,
        features: str | None = None,
        progress: Progress | None = None,
    ) -> FrozenBackbone:
        """Open what `fit` calls a backbone; ``levels`` are those of the data set, see `common_levels`."""
        found, module = open_backbone(
            backbone, weights, pixels, head=False, spec=spec, features=features, progress=progress
        )
        found = replace(found, spec=replace(found.spec, levels=found.spec.levels or levels))
        network = get_engine(
            settings.engine,
            found.blueprint,
            found.weights,
            found.spec,
            settings.precision,
            settings.device,
            module=module,
        )
        return cls(found, network, module)

    def features(self, dataset: ImageDataset, *, cache: bool, progress: StageProgress | None) -> Features:
        """The features of every image; see `extract`."""
        return extract(dataset, self.network, weights_digest(self.pretrained.weights), keep=cache, progress=progress)
