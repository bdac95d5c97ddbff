"""A pool of workers on a cluster: how many, with how many threads each, and the loop that waits for their results."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from headstart.core.errors import MachineError
from headstart.scale.cluster import answers, in_words
from headstart.scale.nodes import Watchdog, check_nodes

MOST_THREADS = 8  # of a worker: with many more, threads of Python wait for each other
ROOM = 0.1  # of a CPU that a worker leaves: where they take all, nothing else gets one, and the work hangs


@dataclass(frozen=True)
class Pool:
    """Workers alike, each for its threads alone."""

    workers: int
    threads: int
    precision: str  # in which the networks run, on all of them; "auto" is the same on each

    def results(self, worker: type[Any], units: int, *args: object) -> Iterator[dict[str, int]]:
        """What workers say of units, by their numbers, as they are done; ``args`` are what a worker is made with.

        A worker that dies with its machine is started anew elsewhere, and its units are done again.
        """
        import ray

        if not units:
            return
        shared = ray.put(args)
        with _quiet(), Watchdog(f"{self.threads} CPUs") as watch, _errors_in_words():
            rows = ray.data.from_items([{"unit": number} for number in range(units)], override_num_blocks=units)
            found = rows.map_batches(
                worker,
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(size=min(self.workers, units), max_tasks_in_flight_per_actor=2),
                num_cpus=self.threads - ROOM,
                fn_constructor_args=(shared, self.threads),
            )
            for row in found.iter_rows():
                watch.done()
                yield {name: int(value) for name, value in row.items()}


def make_pool(precision: str, see: Sequence[str]) -> Pool:
    """A pool on all nodes of the cluster that this process is connected to.

    Args:
        precision: "auto": what that is on all nodes; fp32 where they differ, so that all give the same features.
        see: paths that each node must see.

    Raises:
        MachineError: a node lacks something, or no node has a CPU to give away.
    """
    nodes = check_nodes(see)
    at_work = [node for node in nodes if node.cpus]
    if not at_work:
        raise MachineError("The Ray cluster has no CPUs for its tasks. Start a node with some: ray start --num-cpus=N")
    without = next((node for node in at_work if node.precision != "bf16"), None)
    if precision == "bf16" and without:
        raise MachineError(
            f"The node {without.address} has a processor without bf16, and features of two precisions cannot be mixed. "
            "Take another one: --precision fp32"
        )
    threads = min(MOST_THREADS, *(node.cpus for node in at_work), *(node.cores for node in at_work))
    if precision == "auto" and len({node.precision for node in at_work}) > 1:
        precision = "fp32"
    return Pool(sum(node.cpus // threads for node in at_work), threads, precision)


def on_cluster(function: Callable[..., Any], *args: object, cpus: float = 1) -> Any:
    """What a function returns, run by one task of the cluster; its errors are its own."""
    import ray

    return answers(ray.remote(num_cpus=cpus)(function).remote(*args))


@contextmanager
def _errors_in_words() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        found = in_words(error)
        if found is error:
            raise
        raise found from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the messages of Ray Data."""
    import ray

    context, log = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    level, bars, prints = log.level, context.enable_progress_bars, context.print_on_execution_start
    log.setLevel(logging.ERROR)
    context.enable_progress_bars = context.print_on_execution_start = False
    try:
        yield
    finally:
        log.setLevel(level)
        context.enable_progress_bars, context.print_on_execution_start = bars, prints
