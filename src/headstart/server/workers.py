"""The queue, and the threads that empty it: images of many requests go through the network together."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from headstart.core.errors import UnreadableImageError
from headstart.core.processors import cores
from headstart.data.load import decode
from headstart.data.opened_image import Raw
from headstart.model.answers import Answer
from headstart.server.metrics import Metrics
from headstart.server.refused import Refused, busy, failed, too_late, unreadable
from headstart.server.served import Pixels, Runner, Served
from headstart.server.settings import Settings

LONGEST_RETRY = 60  # seconds
Outcome = Answer | Refused


@dataclass(slots=True, eq=False)
class Job:
    """The images of one request, and their answers as they come."""

    served: Served
    images: Sequence[Raw]
    done: asyncio.Future[None]
    outcomes: list[Outcome] = field(default_factory=list)
    left: int = 0  # images without an answer
    since: float = 0.0
    dropped: bool = False  # nobody waits for it any more

    def __post_init__(self) -> None:
        self.left = len(self.images)
        self.outcomes = [failed()] * self.left
        self.since = time.monotonic()


Waiting = tuple[Job, int]  # one image of a job


class Workers:
    """One thread for each core, and a queue for each model.

    Jobs are handed in and back on one event loop; nothing else of it is touched by the threads.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics(lambda: self.waiting)
        self.arriving = 0  # requests whose body is not there yet, so that waiting for more may be worth it
        self.waiting = 0  # images in the queues
        self.report: Callable[[BaseException], None] = lambda error: None  # told of faults of the server
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = threading.Condition()
        self._queues: dict[Served, deque[Waiting]] = {}  # that which is next to be taken from comes first
        self._stopping = False
        self._working = 0  # threads that have images
        self._each = 0.0  # seconds that a thread takes for an image, lately
        self._count = cores()
        self._threads: list[threading.Thread] = []

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to work for a loop."""
        self._loop, self._stopping = loop, False
        self._threads = [
            threading.Thread(target=self._work, args=(number,), name=f"headstart-serve-{number}", daemon=True)
            for number in range(self._count)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish what is in the queues, and end."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def check_room(self, images: int = 1) -> None:
        """Refuse what the queue has no room for.

        Raises:
            Refused: 429, with the time after which there may be room.
        """
        if self.waiting + images > self.settings.queue:
            seconds = math.ceil(self.waiting * self._each / self._count)
            raise busy(min(max(1, seconds), LONGEST_RETRY))

    def submit(self, served: Served, images: Sequence[Raw]) -> Job:
        """Put the images of a request into the queue.

        Raises:
            Refused: 429, the queue has no room for them.
        """
        assert self._loop is not None  # noqa: S101  (whoever submits has started it)
        with self._changed:
            self.check_room(len(images))
            job = Job(served, images, self._loop.create_future())
            self._queues.setdefault(served, deque()).extend((job, place) for place in range(len(images)))
            self.waiting += len(images)
            self._changed.notify(min(len(images), self._count))
        return job

    def drop(self, job: Job) -> None:
        """Take back what is not begun of a job that nobody waits for."""
        with self._changed:
            job.dropped = True
            if queue := self._queues.get(job.served):
                kept = deque(each for each in queue if each[0] is not job)
                self.waiting -= len(queue) - len(kept)
                self._keep(job.served, kept)

    def _keep(self, served: Served, queue: deque[Waiting]) -> None:
        """Put a queue behind those of other models; an empty one is forgotten, and its model with it."""
        del self._queues[served]
        if queue:
            self._queues[served] = queue

    def _take(self) -> list[Waiting]:
        """Images of one model that go through the network together; none when it is time to end."""
        with self._changed:
            while True:
                if not self._queues:
                    if self._stopping:
                        return []
                    self._changed.wait()
                    continue
                served, queue = next(iter(self._queues.items()))
                until = queue[0][0].since + self.settings.wait / 1000
                if len(queue) < served.at_once and self.arriving and (left := until - time.monotonic()) > 0:
                    self._changed.wait(left)
                    continue
                share = math.ceil(len(queue) / (self._count - self._working))  # threads without work get as many
                found = [queue.popleft() for _ in range(min(share, served.at_once))]
                self.waiting -= len(found)
                self._keep(served, queue)
                self._working += 1
                return found

    def _work(self, number: int) -> None:
        while batch := self._take():
            served, begin = batch[0][0].served, time.monotonic()
            try:
                outcomes = self._outcomes(served.runners[number], batch)
            except BaseException as error:  # whatever it is, the requests get their answer and the thread goes on
                self.report(error)
                outcomes = [failed()] * len(batch)
            with self._changed:
                self._working -= 1
            self._hand_back(batch, outcomes, time.monotonic() - begin)
            del batch, served  # a version that was replaced is freed

    def _outcomes(self, runner: Runner, batch: Sequence[Waiting]) -> list[Outcome]:
        outcomes: list[Outcome] = [too_late()] * len(batch)
        pixels: list[Pixels] = []
        places: list[int] = []
        for place, (job, index) in enumerate(batch):
            if job.dropped:
                continue
            try:
                pixels.append(decode(job.images[index], job.served.classifier.spec, self.settings.max_pixels))
                places.append(place)
            except UnreadableImageError as error:
                outcomes[place] = unreadable(job.images[index], error)
        if pixels:
            for place, answer in zip(places, runner.answers(pixels, alone=self._working == 1), strict=True):
                outcomes[place] = answer
        return outcomes

    def _hand_back(self, batch: Sequence[Waiting], outcomes: Sequence[Outcome], seconds: float) -> None:
        self.metrics.batch_size(batch[0][0].served.name).observe(len(batch))
        each = seconds / len(batch)
        self._each += (each - self._each) * (0.1 if self._each else 1.0)
        assert self._loop is not None  # noqa: S101
        self._loop.call_soon_threadsafe(_deliver, batch, outcomes)


def _deliver(batch: Sequence[Waiting], outcomes: Sequence[Outcome]) -> None:
    """On the loop: each outcome to its job."""
    for (job, index), outcome in zip(batch, outcomes, strict=True):
        job.outcomes[index] = outcome
        job.left -= 1
        if not job.left and not job.done.done():
            job.done.set_result(None)
