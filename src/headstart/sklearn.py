"""Headstart as an estimator of scikit-learn: for `cross_val_score`, `GridSearchCV`, `Pipeline` and the rest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.catalogue import DEFAULT
from headstart.core.errors import HeadstartError, MissingExtraError, needs
from headstart.data.inputs import Images, one_each
from headstart.data.sources import PathLike
from headstart.model.classifier import Classifier
from headstart.workflows.fit import fit

with needs("scikit-learn", "data", "headstart.sklearn"):
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted


class HeadstartClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier of images with scikit-learn's interface; all images that are given to ``fit`` are trained on.

    Images are given as `hs.fit` takes them: a list, column or array of paths, arrays (N, height, width, 3), Pillow's
    images. Their features are kept, so the folds of a cross-validation compute them once.

    Args:
        backbone, weights, pixels, head, prior, engine, precision, device, cache: as for `hs.fit`.
        random_state: a whole number, or a `RandomState` that one is drawn from; None is 0.

    Attributes:
        classes_: the labels (K,), as they were given.
        classifier_: the `hs.Classifier`, which says "unknown", can be saved, and has the rest.
    """

    classes_: NDArray[Any]
    classifier_: Classifier

    def __init__(
        self,
        backbone: object = DEFAULT,
        *,
        weights: PathLike | None = None,
        pixels: int | None = None,
        head: str = "lda",
        prior: str = "flat",
        engine: str = "auto",
        precision: str = "auto",
        device: str = "auto",
        cache: bool = True,
        random_state: Any = None,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.pixels = pixels
        self.head = head
        self.prior = prior
        self.engine = engine
        self.precision = precision
        self.device = device
        self.cache = cache
        self.random_state = random_state

    def fit(self, X: Images, y: Any) -> HeadstartClassifier:
        """Fit on images with one label each.

        Raises:
            ValueError: what is given makes no two classes with two images each, or cannot be read.
        """
        settings = self.get_params(deep=False)
        state = settings.pop("random_state")
        seed = int(state or 0) if isinstance(state, Integral | None) else int(check_random_state(state).randint(2**31))
        with _as_value_errors():
            labels = one_each(y)
            check_classification_targets(np.asarray(labels))
            self.classifier_ = fit(X, labels, holdout=0, seed=seed, diagnose=False, progress=False, **settings)
        self.classes_ = self.classifier_.classes_
        return self

    def predict(self, X: Images) -> NDArray[Any]:
        """The most probable label of each image (N,)."""
        with _as_value_errors():
            return self._asked().predict(X)

    def predict_proba(self, X: Images) -> NDArray[np.floating]:
        """Calibrated probabilities (N, K), in the order of ``classes_``."""
        with _as_value_errors():
            return self._asked().predict_proba(X)

    def predict_log_proba(self, X: Images) -> NDArray[np.floating]:
        """The logarithms of `predict_proba` (N, K), all finite."""
        chances = self.predict_proba(X)
        logarithms: NDArray[np.floating] = np.log(np.maximum(chances, np.finfo(chances.dtype).tiny))
        return logarithms

    def _asked(self) -> Classifier:
        check_is_fitted(self)
        return self.classifier_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = tags.input_tags.three_d_array = tags.input_tags.string = True
        tags.input_tags.two_d_array = False  # rows of numbers are no images: `hs.train_rows` is for those
        return tags


@contextmanager
def _as_value_errors() -> Iterator[None]:
    """scikit-learn's callers expect a `ValueError` where data or settings are no good."""
    try:
        yield
    except MissingExtraError:
        raise
    except HeadstartError as error:
        raise ValueError(str(error)) from error
