"""What is counted for Prometheus, under the names that BentoML gave them: `request_total` and its kin."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 3, 4, 6, 8, 16, 32)


class Metrics:
    """The figures of one server, in a registry of its own."""

    TYPE = CONTENT_TYPE_LATEST

    def __init__(self, waiting: Callable[[], int]) -> None:
        registry = self._registry = CollectorRegistry()

        def named(kind: type[Counter], name: str, what: str, *labels: str) -> Counter:
            return kind(name, what, labels, namespace="headstart", registry=registry)

        endpoint = ("endpoint", "model", "http_response_code")
        self._requests = named(Counter, "request_total", "Requests that were answered.", *endpoint)
        self._seconds = Histogram(
            "request_duration_seconds", "From the first byte of a request to its answer.",
            ("endpoint", "model"), namespace="headstart", registry=registry, buckets=SECONDS,
        )  # fmt: skip
        self.in_progress = Gauge(
            "request_in_progress", "Requests that have no answer yet.", namespace="headstart", registry=registry
        )
        self._batches = Histogram(
            "adaptive_batch_size", "Images that one core took together.",
            ("model",), namespace="headstart", registry=registry, buckets=SIZES,
        )  # fmt: skip
        self.images = named(Counter, "images", "Images that got an answer.", "model")
        self.unknown = named(Counter, "images_unknown", "Images unlike the training photos.", "model")
        self.refused = named(Counter, "images_refused", "Images without an answer.", "model", "kind")
        self.reloads = named(Counter, "model_reloads", "Tries to load a model again.", "model", "result")
        self.load_seconds = Gauge(
            "model_load_seconds", "Time that a version took to load.", ("model",), namespace="headstart",
            registry=registry,
        )  # fmt: skip
        queue = Gauge("queue_length", "Images that wait for a core.", namespace="headstart", registry=registry)
        queue.set_function(waiting)
        ProcessCollector(registry=registry)
        self._of_request = cache(self._children)
        self.batch_size = cache(self._batches.labels)

    def answered(self, endpoint: str, model: str, status: int, seconds: float) -> None:
        """One request has its answer."""
        counter, histogram = self._of_request(endpoint, model, status)
        counter.inc()
        histogram.observe(seconds)

    def _children(self, endpoint: str, model: str, status: int) -> tuple[Counter, Histogram]:
        return self._requests.labels(endpoint, model, str(status)), self._seconds.labels(endpoint, model)

    def text(self) -> bytes:
        """All figures, as Prometheus reads them."""
        return generate_latest(self._registry)
