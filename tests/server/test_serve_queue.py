"""The queue: requests of many clients together, limits, deadlines, and clients that go away."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import urllib.error
import urllib.request
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

import headstart as hs
from headstart.core.processors import cores
from headstart.server.models import Models
from making import packed, picture
from serving import PATIENCE, Gate, error_of, occupy, reply_of, request_of, serving, until


@pytest.fixture(scope="module")
def opened(small_bundle: Path) -> str:
    return str(small_bundle)


@pytest.fixture
def photo() -> bytes:
    return packed(picture("discs", 3))


def test_requests_of_many_clients_go_together(opened: str, photo: bytes) -> None:
    with serving({"m": opened}) as running, ThreadPoolExecutor(40) as pool:
        held = Gate(running, "m")
        first = occupy(running, held, pool, photo)
        rest = [pool.submit(running.post, photo) for _ in range(16)]
        until(lambda: running.server.workers.waiting == 16)
        held.opened.set()
        assert {each.result().status_code for each in [*first, *rest]} == {200}
        at_once = running.server.models.served["m"].at_once
        assert held.sizes[cores()] == at_once
        assert sum(held.sizes[cores() :]) == 16


def test_threads_without_work_share_the_images_of_a_request(opened: str, photo: bytes) -> None:
    with serving({"m": opened}) as running, ThreadPoolExecutor(1) as pool:
        held = Gate(running, "m")
        asked = pool.submit(running.files, *[photo] * cores())
        until(lambda: len(held.sizes) == cores())
        held.opened.set()
        assert len(asked.result().json()["predictions"]) == sum(held.sizes) == cores()


def test_an_image_has_all_cores_only_where_no_other_is_in_work(opened: str, photo: bytes) -> None:
    with serving({"m": opened}) as running, ThreadPoolExecutor(20) as pool:
        held = Gate(running, "m")
        taken = occupy(running, held, pool, photo)
        held.opened.set()
        assert {each.result().status_code for each in taken} == {200}
        running.post(photo)
        assert held.alone == [True, *[False] * (cores() - 1), True]


def test_a_single_client_does_not_wait_for_others(opened: str, photo: bytes) -> None:
    with serving({"m": opened}, wait=1000, timeout=3600) as running:
        running.post(photo)
        seconds = [running.post(photo).elapsed.total_seconds() for _ in range(3)]
        assert min(seconds) < 0.9


def test_who_is_on_the_way_is_waited_for(opened: str, photo: bytes) -> None:
    with serving({"m": opened}, wait=1000, timeout=60) as running, ThreadPoolExecutor(20) as pool:
        held = Gate(running, "m")
        taken = occupy(running, held, pool, photo, cores() - 1)
        whole = request_of(photo, "Connection: close")
        slow = running.raw(whole[:-10])
        until(lambda: running.server.workers.arriving == 1)
        fast = pool.submit(running.post, photo)
        until(lambda: running.server.workers.waiting == 1)
        slow.sendall(whole[-10:])
        until(lambda: len(held.sizes) == cores())
        held.opened.set()
        assert reply_of(slow)[0] == fast.result().status_code == 200
        assert held.sizes == [*[1] * len(taken), 2]


def test_a_full_queue_says_when_to_come_back(opened: str, photo: bytes) -> None:
    with serving({"m": opened}, queue=5, max_images=5) as running, ThreadPoolExecutor(20) as pool:
        held = Gate(running, "m")
        taken = occupy(running, held, pool, photo)
        taken += [pool.submit(running.post, photo) for _ in range(5)]
        until(lambda: running.server.workers.waiting == 5)
        refused = [running.post(photo), running.files(photo, photo)]
        for response in refused:
            assert (response.status_code, error_of(response)["kind"]) == (429, "busy")
            assert 1 <= int(response.headers["retry-after"]) <= 60
        assert running.client.get("/ready").status_code == 200
        held.opened.set()
        assert {each.result().status_code for each in taken} == {200}
        assert running.post(photo).status_code == 200


def test_a_request_that_never_fits_is_too_large_not_busy(opened: str, photo: bytes) -> None:
    with pytest.raises(hs.UsageError, match="queue"), serving({"m": opened}, queue=5, max_images=6):
        pass


def test_an_answer_that_takes_too_long_is_given_up(opened: str, photo: bytes) -> None:
    with serving({"m": opened}, timeout=2) as running, ThreadPoolExecutor(20) as pool:
        held = Gate(running, "m")
        late = occupy(running, held, pool, photo) + [pool.submit(running.post, photo) for _ in range(3)]
        found = [each.result() for each in late]
        assert {(each.status_code, error_of(each)["kind"]) for each in found} == {(504, "too late")}
        assert running.server.workers.waiting == 0  # what was not begun is not done any more
        held.opened.set()
        assert len(held.sizes) == cores()
        assert running.post(photo).status_code == 200


def test_work_for_a_client_that_went_away_is_dropped(opened: str, photo: bytes) -> None:
    with serving({"m": opened}) as running, ThreadPoolExecutor(20) as pool:
        held = Gate(running, "m")
        taken = occupy(running, held, pool, photo)
        gone = [running.raw(request_of(photo)) for _ in range(3)]
        until(lambda: running.server.workers.waiting == 3)
        for each in gone:
            each.close()
        until(lambda: running.server.workers.waiting == 0)
        held.opened.set()
        assert {each.result().status_code for each in taken} == {200}
        assert running.post(photo).status_code == 200
        assert len(held.sizes) == cores() + 1
        assert running.server.bodies.held == 0


def test_a_body_that_comes_too_slowly(opened: str, photo: bytes) -> None:
    with serving({"m": opened}, timeout=0.4) as running:
        slow = [running.raw(request_of(photo[:100], length=len(photo))) for _ in range(5)]
        for each in slow:
            status, headers, body = reply_of(each)
            assert (status, headers["connection"]) == (408, "close")
            assert b'"too slow"' in body
        assert running.server.workers.arriving == running.server.bodies.held == 0
        assert running.post(photo).status_code == 200


@pytest.mark.parametrize("start", [b"", b"POST /pre", b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-"])
def test_headers_that_never_end(start: bytes, opened: str) -> None:
    with serving({"m": opened}, timeout=0.4) as running:
        assert reply_of(running.raw(start))[0] == 0  # closed


def test_a_body_that_nobody_reads_is_not_waited_for(opened: str) -> None:
    with serving({"m": opened}, timeout=0.4) as running:
        assert reply_of(running.raw(request_of(b"x" * 100, path="/nowhere", length=10**9)))[0] == 404  # and it ends


def test_a_body_that_is_too_large_is_not_kept(opened: str) -> None:
    with serving({"m": opened}, max_megabytes=0.1) as running:
        for response in (
            running.post(b"x" * 150_000),
            running.client.post("/predict", content=(b"x" * 1000 for _ in range(150))),  # its length is not told
        ):
            assert (response.status_code, error_of(response)["kind"]) == (413, "too large")
        said = running.raw(request_of(b"", "Expect: 100-continue", length=10**12))
        assert reply_of(said)[0] == 413
        assert running.server.bodies.held == 0


@pytest.mark.parametrize("told", [True, False])
def test_a_client_that_sends_all_first_reads_that_it_is_too_large(told: bool, opened: str) -> None:
    """urllib reads nothing before it has sent the whole body, with its length or in chunks."""
    with serving({"m": opened}, max_megabytes=2) as running:
        body: bytes | Iterator[bytes] = b"x" * 30_000_000 if told else (b"x" * 1_000_000 for _ in range(30))
        request = urllib.request.Request(f"{running.url}/predict", body, {"Content-Type": "image/png"})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=PATIENCE)
        with refused.value:
            assert refused.value.code == 413
            assert json.loads(refused.value.read())["error"]["message"] == "The body is over 2 MB."
        assert running.server.bodies.held == running.server.workers.arriving == 0


def test_a_body_that_is_too_large_has_no_more_time_than_others(opened: str) -> None:
    with serving({"m": opened}, max_megabytes=0.1, timeout=0.4) as running:
        for content in (b"x", b"x" * 150_000):
            assert reply_of(running.raw(request_of(content, length=200_000)))[0] == 413
        whole = running.raw(request_of(b"x" * 100_001))  # of which nothing is left to wait for
        assert reply_of(whole)[0] == 413
        assert running.server.bodies.held == 0


def test_memory_for_bodies_has_a_limit(opened: str, photo: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.server.read_request.HELD", len(photo) + 10)
    with serving({"m": opened}) as running:
        slow = running.raw(request_of(photo[:-1], length=len(photo)))
        until(lambda: running.server.bodies.held == len(photo) - 1)
        response = running.post(photo)
        assert (response.status_code, response.headers["retry-after"]) == (429, "1")
        slow.close()
        until(lambda: running.server.bodies.held == 0)
        assert running.post(photo).status_code == 200


def test_a_fault_is_an_answer_and_the_thread_goes_on(
    opened: str, photo: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving({"m": opened}, log="json") as running:
        runners = running.server.models.served["m"].runners
        sound = [runner.answers for runner in runners]

        def fails(_: object, alone: bool) -> None:
            raise RuntimeError("secret of /home/someone")

        for runner in runners:
            runner.answers = fails  # type: ignore[assignment,method-assign]
        for response in (running.post(photo), running.files(photo, photo)):
            assert (response.status_code, error_of(response)["kind"]) == (500, "failed")
        for runner, answers in zip(runners, sound, strict=True):
            runner.answers = answers  # type: ignore[method-assign]
        assert running.post(photo).status_code == 200
    assert "secret of" in capsys.readouterr().err


def test_several_models_share_the_cores(opened: str, photo: bytes) -> None:
    models = Models({"a": opened, "b": opened})
    with serving(models) as running, ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(running.client.post, f"/predict?model={name}", content=photo) for name in "ab" * 8]
        assert [each.result().json()["model"] for each in asked] == ["a", "b"] * 8
        unsaid = running.post(photo)
        assert (unsaid.status_code, error_of(unsaid)["kind"]) == (422, "which model")
        assert error_of(unsaid)["message"] == "Several models are served: a, b. Say which: ?model=NAME"
        lost = running.client.post("/predict?model=c", content=photo)
        assert (lost.status_code, error_of(lost)["kind"]) == (404, "no such model")


def test_pipelined_and_kept_connections(opened: str, photo: bytes) -> None:
    with serving({"m": opened}) as running:
        connection = running.raw(request_of(photo) + request_of(photo, "Connection: close"))
        data = b""
        while chunk := connection.recv(65536):
            data += chunk
        assert data.count(b"HTTP/1.1 200 OK") == 2


def test_while_it_loads_it_says_so(opened: str, photo: bytes) -> None:
    with serving({"m": opened}) as running:
        served = running.server.models.served.pop("m")
        ready, asked = running.client.get("/ready"), running.post(photo)
        assert (ready.status_code, ready.json()["status"]) == (503, "loading")
        assert (asked.status_code, error_of(asked)["kind"], asked.headers["retry-after"]) == (503, "loading", "1")
        assert running.client.get("/health").status_code == 200
        running.server.models.served["m"] = served
        running.server.stopping = True
        assert running.client.get("/ready").json()["status"] == "stopping"


def test_a_version_that_was_replaced_is_freed(opened: str, photo: bytes) -> None:
    with serving({"m": opened}) as running:
        running.files(*[photo] * 9)
        old = weakref.ref(running.server.models.served["m"])
        loop = running.server.workers._loop
        assert loop is not None
        asyncio.run_coroutine_threadsafe(running.server.reload(), loop).result(PATIENCE)
        running.files(*[photo] * 9)
        gc.collect()
        assert old() is None


def test_memory_does_not_grow(opened: str, photo: bytes) -> None:
    psutil = pytest.importorskip("psutil")
    with serving({"m": opened}) as running, ThreadPoolExecutor(8) as pool:

        def many() -> int:
            with httpx.Client(base_url=running.url, timeout=60) as client:
                assert all(client.post("/predict", content=photo).status_code == 200 for _ in range(25))
            return threading.active_count()

        def round_of() -> int:
            list(pool.map(lambda _: many(), range(8)))
            return int(psutil.Process().memory_info().rss)

        round_of()
        before = round_of()
        after = [round_of() for _ in range(3)][-1]
        assert after - before < 20_000_000
        assert running.server.bodies.held == running.server.workers.waiting == 0
