"""What the process that began a training answers its workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from headstart.core.errors import HeadstartError, MachineError
from headstart.scale.cluster import answers
from headstart.scale.training_worker import Begin
from headstart.train.checkpoint import Checkpoints, Terminated
from headstart.train.protocol import Callback, Trained


class TrainingAnswers:
    """Callbacks, messages and checkpoints of one training, and its end.

    What is done again after a worker was lost is told to the callbacks once.
    """

    def __init__(
        self,
        number: int,
        job: Any,
        callbacks: Sequence[Callback],
        say: Callable[[str], None] | None,
        checkpoints: Checkpoints | None,
    ) -> None:
        """``job`` is a reference to the `Job`, and ``number`` tells the trainings of the same workers apart."""
        self.trained: Trained | None = None
        self.failed: HeadstartError | None = None
        self._number, self._job = number, job
        self._callbacks, self._say, self._checkpoints = callbacks, say, checkpoints
        self._told = {"step": -1, "epoch": -1}  # the number of the last
        self._reasons: dict[tuple[str, int], str] = {}
        self._latest: list[Any] = []  # keeps what a reference stands for

    @property
    def over(self) -> bool:
        """Whether the training has ended."""
        return self.trained is not None or self.failed is not None

    def begin(self) -> Begin:
        """For a worker that is to train: from the latest checkpoint on."""
        import ray

        found = self._checkpoints.latest() if self._checkpoints is not None else None
        self._latest = [] if found is None else [ray.put(found)]
        return Begin(self._number, self._job, tuple(self._latest))

    def answer(self, kind: str, content: Any) -> Any:
        """The answer to any other question.

        Raises:
            Terminated: the system asked this process to end, and the workers have saved.
        """
        if kind in self._told:
            number = content[0] if kind == "step" else len(content) - 1
            return self._reason(kind, number, content), self._checkpoints is not None and self._checkpoints.asked
        if kind == "save":
            return self._save(content[0])
        if kind == "say" and self._say is not None:
            self._say(content)
        elif kind == "trained":
            self.trained = answers(content[0])
        elif kind == "failed":
            self.failed = content
        elif kind == "ended":
            raise Terminated(content)
        return None

    def _reason(self, kind: str, number: int, content: Any) -> str | None:
        if number > self._told[kind]:
            self._told[kind] = number
            found = [each.step(*content) if kind == "step" else each.epoch(content) for each in self._callbacks]
            if reason := next((reason for reason in found if reason), None):
                self._reasons[kind, number] = reason
        return self._reasons.get((kind, number))

    def _save(self, ref: Any) -> bool:
        if self._checkpoints is None:
            return False
        try:
            found = answers(ref)
        except MachineError:  # the worker was lost that had it
            return False
        return self._checkpoints.save(found.step, found.state, found.about)
