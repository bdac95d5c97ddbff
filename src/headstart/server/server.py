"""What the addresses of a server share: its models, its queue, its limits, and one way to ask them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from headstart.data.opened_image import Raw
from headstart.data.threads import ONE_BLAS_THREAD
from headstart.model.answers import Answer
from headstart.server.logs import Log
from headstart.server.models import Models
from headstart.server.read_request import Bodies, ClientGone, Receive, Scope, Upload
from headstart.server.refused import Refused
from headstart.server.served import Served
from headstart.server.settings import Settings
from headstart.server.workers import Job, Outcome, Workers

LISTEN = 0.1  # seconds that a request waits before it is looked whether its client is still there
STATE = "headstart"  # where a scope keeps its `Exchange`


@dataclass(slots=True)
class Exchange:
    """One request and its answer, for the log and the figures."""

    request_id: str
    status: int = 0
    model: str = ""
    images: int = 0
    kind: str = ""  # of the refusal
    arriving: bool = False
    held: int = 0  # bytes of its body


class Server:
    """The models of a server, and all that they need to answer."""

    def __init__(self, models: Models, settings: Settings) -> None:
        self.models, self.settings = models, settings
        self.log = Log(settings.log)
        self.bodies = Bodies(settings)
        self.workers = Workers(settings)
        self.workers.report = self.log.fault
        self.metrics = self.workers.metrics
        self.stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self.failure: BaseException | None = None  # why the models could not be loaded
        self.when_loaded: Callable[[], None] = lambda: None

    @asynccontextmanager
    async def running(self, *, watch: bool = False) -> AsyncIterator[None]:
        """While it runs: load the models, then look at their folders if they are to be watched."""
        with ONE_BLAS_THREAD:  # each core has a thread of ours
            self._loop = asyncio.get_running_loop()
            self.workers.start(self._loop)
            task = asyncio.create_task(self._look_after_models(watch))
            try:
                yield
            finally:
                task.cancel()
                await asyncio.to_thread(self.workers.stop)
                await asyncio.sleep(0)  # what the threads handed back last
                self.log.say("stopped")

    def stop(self) -> None:
        """Be ready no more; called from a signal, in which nothing is written."""
        first, self.stopping = not self.stopping, True
        if first and self._loop:
            self._loop.call_soon_threadsafe(self.log.say, "stopping")

    async def _look_after_models(self, watch: bool) -> None:
        try:
            if not self.models.ready:
                await asyncio.to_thread(self.models.open_all)
            for served in self.models.served.values():
                self.metrics.load_seconds.labels(served.name).set(served.seconds)
        except Exception as error:
            self.failure = error
        self.when_loaded()
        if watch and not self.failure:
            await self.models.watch(self.log, self.metrics)

    async def reload(self) -> None:
        """Load all models again."""
        await self.models.reload(list(self.models.sources), self.log, self.metrics)

    @asynccontextmanager
    async def body(self, scope: Scope, receive: Receive) -> AsyncIterator[bytearray]:
        """The body of a request, whose bytes are counted until it is answered.

        Raises:
            Refused: see `Bodies.read`; and 429 at once, where there is no room in the queue.
        """
        self.workers.check_room()
        self.workers.arriving += 1
        try:
            found = await self.bodies.read(scope, receive)
        finally:
            self.workers.arriving -= 1
        try:
            yield found
        finally:
            self.bodies.held -= len(found)

    async def ask(self, scope: Scope, receive: Receive, served: Served, images: Sequence[Raw]) -> list[Outcome]:
        """An answer to each image, or why there is none.

        Raises:
            Refused: 429 the queue is full, 504 it took too long, 500.
            ClientGone: nobody waits for it any more.
        """
        exchange: Exchange = scope[STATE]
        exchange.model, exchange.images = served.name, len(images)
        job = self.workers.submit(served, images)
        loop = asyncio.get_running_loop()
        listening: list[asyncio.Task[None]] = []
        timer = loop.call_later(LISTEN, lambda: listening.append(loop.create_task(_listen(receive, job))))
        try:
            async with asyncio.timeout(self.settings.timeout):
                await job.done
        except TimeoutError:
            raise Refused(504, "too late", "The answer took too long; it was given up.") from None
        finally:
            timer.cancel()
            for task in listening:
                task.cancel()
            if job.left:
                self.workers.drop(job)
        self._count(served.name, job.outcomes)
        return job.outcomes

    def _count(self, model: str, outcomes: Sequence[Outcome]) -> None:
        answers = [each for each in outcomes if isinstance(each, Answer)]
        if answers:
            self.metrics.images.labels(model).inc(len(answers))
            self.metrics.unknown.labels(model).inc(sum(each.unknown for each in answers))
        for each in outcomes:
            if isinstance(each, Refused):
                self.metrics.refused.labels(model, each.kind).inc()
                if each.status >= 500:
                    raise each


async def _listen(receive: Receive, job: Job) -> None:
    """Wait for the client to go away."""
    while (await receive())["type"] != "http.disconnect":
        pass
    if not job.done.done():
        job.done.set_exception(ClientGone())


def prediction(upload: Upload, outcome: Outcome, served: Served, top: int) -> dict[str, Any]:
    """An answer as the server gives it, or why there is none."""
    if isinstance(outcome, Refused):
        return {"name": upload.name, "error": {"kind": outcome.kind, "message": outcome.message}}
    found = outcome.as_json(served.classes, top, every=False)
    del found["path"]
    return {"name": upload.name, **found}


def predictions(
    uploads: Sequence[Upload], outcomes: Sequence[Outcome], served: Served, top: int = 1
) -> list[dict[str, Any]]:
    """All answers of a request. Of several images each has its own error; that of a single one is the request's.

    Raises:
        Refused: the single image got no answer.
    """
    if len(outcomes) == 1 and isinstance(outcomes[0], Refused):
        raise outcomes[0]
    return [prediction(*pair, served, top) for pair in zip(uploads, outcomes, strict=True)]
