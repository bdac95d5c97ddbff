"""`headstart serve` as a process: how it starts, is told of, reloads and stops; with requests under way."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

import headstart as hs
from making import Shell, folder, packed, picture
from serving import PATIENCE, serving, until
from serving_process import process

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="signals of Unix")


@pytest.fixture
def photo() -> bytes:
    return packed(picture("discs", 3))


@dataclass
class Load:
    """Clients that ask without a pause until they are told to end, or get no connection any more."""

    url: str
    photo: bytes
    answers: list[httpx.Response] = field(default_factory=list)
    broken: list[Exception] = field(default_factory=list)
    ending: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self, clients: int = 6) -> Iterator[Load]:
        """While the block runs."""
        threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            until(lambda: len(self.answers) > 3 * clients)
            yield self
        finally:
            self.ending.set()
            for thread in threads:
                thread.join(PATIENCE)

    def _ask(self) -> None:
        with httpx.Client(base_url=self.url, timeout=PATIENCE) as client:
            while not self.ending.is_set():
                try:
                    self.answers.append(client.post("/predict", content=self.photo))
                except httpx.TransportError as error:
                    self.broken.append(error)
                    return


def test_it_says_where_it_is_and_stops_under_load_without_an_answer_lost(small_bundle: Path, photo: bytes) -> None:
    with process(f"shapes={small_bundle}") as server:
        url = server.url
        with Load(url, photo).running() as load:
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(PATIENCE) == 0
        assert {each.status_code for each in load.answers} == {200}
        # a connection ends between two requests, before any of an answer has come
        assert all(isinstance(each, httpx.ConnectError | httpx.ReadError | httpx.WriteError | httpx.RemoteProtocolError)
                   for each in load.broken)  # fmt: skip
    done = server.events("request")
    assert len([each for each in done if each["status"] == 200]) == len(load.answers)
    assert {each["status"] for each in done} == {200}
    assert {each.headers["x-request-id"] for each in load.answers} == {each["request_id"] for each in done}
    assert {each["client"] for each in done} == {"127.0.0.1"}
    events = [json.loads(line)["event"] for line in server.lines if line.startswith("{")]
    assert (events.count("stopping"), events[-1]) == (1, "stopped")
    assert server.lines[0] == f"headstart: serving shapes at {url}\n"
    assert server.lines[1] == f"headstart: try: curl -F image=@photo.jpg {url}/predict\n"


def test_ctrl_c_is_no_error(small_bundle: Path) -> None:
    with process(str(small_bundle), "--log", "none") as server:
        assert httpx.get(f"{server.url}/ready").status_code == 200
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(PATIENCE) == 0
    assert len(server.lines) == 2


def test_what_cannot_be_served_is_told(
    small_bundle: Path, tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    altered = tmp_path / "altered"
    shutil.copytree(small_bundle, altered)
    with (altered / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x00\x01"[:1])
    for arguments, code, said in (
        (("nowhere",), 2, "There is no model 'nowhere'"),
        (("ü=altered",), 2, "'ü' cannot be the name of a served model"),
        (("ü=nowhere",), 2, "'ü=nowhere' cannot be the name of a served model"),
        (("x=",), 2, "'x=' names a model, and no path comes after it. Expected NAME=PATH."),
        ((str(altered),), 4, "was altered"),
        ((str(small_bundle), "--port", "99999"), 2, "--port: expected a whole number, 0 to 65535"),
        ((str(small_bundle), "--max-images", "0"), 2, "--max-images: expected a whole number, 1 to 4096"),
        ((str(small_bundle), "--host", "no.such.host.invalid"), 2, "cannot be served at"),
        ((str(small_bundle), "--token-file", str(tmp_path / "none")), 2, "cannot be read"),
        ((str(small_bundle), "--queue", "5"), 2, "has no room for a request of --max-images 64"),
        ((str(small_bundle), str(small_bundle)), 2, "Two models are called"),
    ):
        answer = shell("serve", *arguments)
        assert (answer.code, said in answer.err) == (code, True), answer.err
        assert "Traceback" not in answer.err
    (tmp_path / "short").write_text("abc")
    assert (
        "expected a token of at least 8"
        in shell("serve", str(small_bundle), "--token-file", str(tmp_path / "short")).err
    )


def test_an_event_loop_that_runs_already_is_told(small_bundle: Path) -> None:
    async def inside() -> None:
        hs.serve(small_bundle, port=0)

    with pytest.raises(hs.UsageError, match="Serve from a terminal"):
        asyncio.run(inside())


def test_the_extra_is_named_where_it_is_missing(
    small_bundle: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    answer = shell("serve", str(small_bundle))
    assert answer.code == 2
    assert "headstart[serve]" in answer.err


def test_a_token_comes_from_a_file_or_the_environment(small_bundle: Path, tmp_path: Path, photo: bytes) -> None:
    (tmp_path / "token").write_text("a-long-secret-token\n")
    with process(str(small_bundle), "--token-file", str(tmp_path / "token"), HEADSTART_TOKEN="another-one") as server:
        right = {"Authorization": "Bearer a-long-secret-token"}
        assert httpx.post(f"{server.url}/predict", content=photo).status_code == 401
        assert httpx.post(f"{server.url}/predict", content=photo, headers=right).status_code == 200
        assert f'-H "Authorization: Bearer $(cat {tmp_path / "token"})"' in server.lines[1]
    assert "a-long-secret" not in "".join(server.lines)


@pytest.mark.parametrize("how", ["signal", "folder"])
def test_a_new_model_under_load_loses_no_request(how: str, small_bundle: Path, tmp_path: Path, photo: bytes) -> None:
    served, other = tmp_path / "served", tmp_path / "other"
    shutil.copytree(small_bundle, served)
    hs.fit(str(folder(tmp_path / "two", 8, ("bars", "discs"))), pixels=32, cache=False).save(other)
    watch = "--no-watch" if how == "signal" else "--watch"
    with process(f"shapes={served}", watch) as server, Load(server.url, photo).running() as load:
        before = httpx.get(f"{server.url}/model").json()
        hs.load(other).save(served, overwrite=True)
        if how == "signal":
            server.process.send_signal(signal.SIGHUP)
        until(lambda: server.events("model loaded"))
        now = httpx.get(f"{server.url}/model").json()
        assert (len(before["classes"]), len(now["classes"])) == (3, 2)
        count = len(load.answers)
        until(lambda: len(load.answers) > count + 10)
    assert {each.status_code for each in load.answers} == {200}
    assert load.broken == []
    versions = [each.json()["version"] for each in load.answers]
    assert {before["version"], now["version"]} == set(versions)
    assert versions[-1] == now["version"]


def test_a_damaged_model_is_refused_and_the_old_one_stays(
    small_bundle: Path, tmp_path: Path, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.server.models.LOOK", 0.1)
    served = tmp_path / "served"
    shutil.copytree(small_bundle, served)
    with serving({"m": str(served)}, watch=True) as running:
        before = running.post(photo).json()
        whole = (served / "model.safetensors").read_bytes()
        (served / "model.safetensors").write_bytes(whole[:-1] + b"\x01")

        def tries() -> float:
            return float(running.server.metrics.reloads.labels("m", "refused")._value.get())

        until(lambda: tries() == 1)
        assert running.post(photo).json() == before
        assert running.client.get("/ready").status_code == 200
        threading.Event().wait(0.5)
        assert tries() == 1  # it is not tried again while nothing changes
        (served / "model.safetensors").write_bytes(whole)
        until(lambda: running.server.metrics.reloads.labels("m", "loaded")._value.get() == 1)
        assert running.post(photo).json() == before
        said: list[str] = []
        monkeypatch.setattr(running.server.log, "say", lambda event, **_: said.append(event))
        shutil.rmtree(served)
        until(lambda: "model folder gone" in said)
        assert running.post(photo).json() == before


def test_a_reload_says_that_the_folder_is_gone(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = tmp_path / "served"
    shutil.copytree(small_bundle, served)
    with serving({"m": str(served)}) as running:
        said: list[object] = []
        monkeypatch.setattr(running.server.log, "say", lambda *_, **facts: said.append(facts.get("reason")))
        shutil.rmtree(served)
        for _ in range(2):
            loop = running.server.workers._loop
            assert loop is not None
            asyncio.run_coroutine_threadsafe(running.server.reload(), loop).result(PATIENCE)
        assert said == [f"The folder '{served}' is gone."] * 2
