"""The page of the format web as a file: what is in it, what it allows, and where its runtime comes from."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import headstart as hs
from exporting import AWKWARD, difference, every_op, fp32, of_bundle
from headstart.core.errors import CheckError, UsageError
from headstart.export import web
from headstart.export.onnx_graph import build
from headstart.export.package import Package
from headstart.export.web import runtime
from headstart.export.web.page import ALONE
from headstart.export.web.runtime import SCRIPT, WASM, as_global, find_runtime
from headstart.export.web.sixteen_bits import in_sixteen_bits
from making import Shell
from publisher import Publisher, serve
from web_pages import HOSTILE, STAND_IN


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "find_runtime", lambda: STAND_IN)


class Elements(HTMLParser):
    """What a browser would see: the elements with their attributes, and the text of each script and style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.inside = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.texts.append((self.found[-1][1].get("type") or self.found[-1][0], data))


def written(package: Package, folder: Path) -> str:
    web.write(package, folder / "it.html")
    return (folder / "it.html").read_text("utf-8")


@pytest.mark.usefixtures("stand_in")
def test_the_command_says_what_it_wrote(shell: Shell, bundle: Path, tmp_path: Path) -> None:
    answer = shell("export", bundle, "--to", "web", "--out", tmp_path / "it.html")
    assert (answer.code, answer.err) == (0, "")
    said = " ".join(answer.out.split())
    assert "holds weights of 16 bits, 7." in said
    assert re.search(
        r"probabilities by \de-\d\d at most, and 0 of \d labels\. Of the page, the model is 9\.\d MB", said
    )
    assert "takes photos: JPEG" in said
    assert "gives the label, calibrated probabilities, and whether it is unknown: bars, discs, waves" in said
    assert 'webbrowser.open(pathlib.Path("' in said
    again = shell("export", bundle, "--to", "web", "--out", tmp_path / "it.html", "--overwrite", "--json").json
    assert again["note"].startswith("weights of 16 bits")
    assert again["tolerance"] == 1e-3
    assert 0 < again["max_difference"] < 5e-4


@pytest.mark.usefixtures("stand_in")
def test_the_model_in_the_page_gives_the_logits(bundle: Path, tmp_path: Path) -> None:
    for package in (every_op(), of_bundle(bundle)):
        written(package, tmp_path)
        logits = web.replay(tmp_path / "it.html", package.golden.images)["logits"]
        assert difference(logits, fp32(package, package.golden.images)) < 1e-3


@pytest.mark.usefixtures("stand_in")
def test_weights_keep_their_bits_where_answers_would_change(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, sizes = hs.load(bundle, precision="fp32"), list[int]()
    for most, words in ((1e-3, "weights of 16 bits"), (0.0, "weights of 32 bits, 13.")):
        monkeypatch.setattr(web, "MOST", most)
        done = model.export("web", tmp_path / f"{most}.html")
        assert done.note.startswith(words)
        sizes.append(sum(done.files.values()))
    assert sizes[0] < 0.65 * sizes[1]
    assert model.export("web", tmp_path / "again.html").max_difference < 1e-5


def test_sixteen_bits_are_half_of_a_step_away_at_most(bundle: Path) -> None:
    package = of_bundle(bundle)
    model = build(package)
    small = in_sixteen_bits(model, package.weights)
    arrays = {each.name: onnx.numpy_helper.to_array(each) for each in small.graph.initializer}
    found = 0
    for constant in model.graph.initializer:
        expected = onnx.numpy_helper.to_array(constant)
        if (whole := arrays.get(f"{constant.name}.whole")) is None:
            np.testing.assert_array_equal(arrays[constant.name], expected)
            continue
        scale = arrays[f"{constant.name}.scale"]
        assert constant.name in package.weights  # what photos are compared with stays exact
        assert (whole.dtype, scale.shape[0], scale.size) == (np.int16, len(expected), len(expected))
        assert (np.abs(whole * scale.astype(float) - expected) <= scale * 0.505).all()
        found += 1
    assert found > 30
    assert small.ByteSize() < 0.6 * model.ByteSize()


@pytest.mark.usefixtures("stand_in")
def test_the_page_allows_its_own_script_and_nothing_else(bundle: Path, tmp_path: Path) -> None:
    page = Elements(written(of_bundle(bundle), tmp_path))
    (policy,) = (
        attributes["content"] or "" for _, attributes in page.found if attributes.get("http-equiv") is not None
    )
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split("; ")}
    assert rules["default-src"] == rules["connect-src"] == rules["form-action"] == rules["base-uri"] == ["'none'"]
    texts = {kind: text for kind, text in page.texts if kind in ("module", "style")}
    hashes = {
        kind: f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for kind, text in texts.items()
    }
    assert rules["script-src"] == [hashes["module"], "'wasm-unsafe-eval'"]
    assert rules["style-src"] == [hashes["style"]]
    assert [*rules] == [*ALONE, "script-src", "style-src"]
    assert {source for name in ("img-src", "media-src") for source in rules[name]} <= {"data:", "blob:", "mediastream:"}
    kinds = [attributes.get("type") for tag, attributes in page.found if tag == "script"]
    assert kinds == ["application/json", "text/plain", "text/plain", "module"]
    sources = [attributes[name] for _, attributes in page.found for name in ("src", "href") if name in attributes]
    assert sources == ["data:,"]
    assert not any(name.startswith("on") or name == "style" for _, attributes in page.found for name in attributes)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("names", [AWKWARD, HOSTILE], ids=["awkward", "hostile"])
def test_names_are_text_whatever_they_are(names: tuple[str, ...], tmp_path: Path) -> None:
    package = replace(every_op(), classes=names)
    text = written(package, tmp_path)
    page, plain = Elements(text), Elements(written(replace(package, classes=tuple("abcde")), tmp_path))
    assert [tag for tag, _ in page.found] == [tag for tag, _ in plain.found]
    (about,) = (content for kind, content in page.texts if kind == "application/json")
    assert json.loads(about)["classes"] == list(names)
    assert "\u202e" not in text


def test_a_script_that_does_not_fit_into_a_page_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "find_runtime", lambda: replace(STAND_IN, script="const a = '</SCRIPT>';"))
    with pytest.raises(CheckError, match="does not fit into a page"):
        written(every_op(), tmp_path)


# --- the runtime ------------------------------------------------------------------------------------------------------


def archive(**members: bytes) -> bytes:
    """Like npm's, with others beside the two that count."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, content in {"package/other.js": b"other", SCRIPT: b"", WASM: b"wasm", **members}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


BUNDLE = b"var a=1,b=2;export{a as InferenceSession,b as env};\n//# sourceMappingURL=ort.mjs.map\n"


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    """Stands for npm's registry."""
    content = archive(**{SCRIPT: BUNDLE})
    publisher = Publisher(content)
    server = serve(publisher)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(runtime, "URL", f"{publisher.address}/-/ort-1.tgz")
    monkeypatch.setattr(runtime, "SHA512", hashlib.sha512(content).hexdigest())
    monkeypatch.delenv("HEADSTART_OFFLINE")
    yield publisher
    server.shutdown()
    server.server_close()


def test_the_runtime_is_fetched_once_and_kept(publisher: Publisher, home: Path, shell: Shell) -> None:
    for _ in range(2):
        found = find_runtime()
        assert found.wasm == b"wasm"
        assert found.script == "var a=1,b=2;\nconst ort = {InferenceSession: a, env: b};\n"
    assert len(publisher.asked) == 1
    kept = home / "weights" / "ort-1.tgz"
    assert shell("cache", "--json").json["weights"] == [{"file": str(kept), "bytes": len(publisher.content)}]


def test_without_a_network_the_file_can_be_put_where_it_belongs(
    publisher: Publisher, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = home / "weights" / "ort-1.tgz"
    monkeypatch.setenv("HEADSTART_OFFLINE", "1")
    with pytest.raises(UsageError, match=rf"HEADSTART_OFFLINE is set: put the file from http\S+ \(33 MB\) at '{kept}'"):
        find_runtime()
    kept.parent.mkdir()
    kept.write_bytes(publisher.content[:-1])
    with pytest.raises(UsageError, match=rf"'{kept}' is damaged or another file: expected SHA-512"):
        find_runtime()
    kept.write_bytes(publisher.content)
    assert find_runtime().wasm == b"wasm"
    assert publisher.asked == []


def test_another_file_is_not_kept(publisher: Publisher, home: Path) -> None:
    publisher.content = archive(**{SCRIPT: b"evil"})
    with pytest.raises(CheckError, match="gave another file than the recorded one"):
        find_runtime()
    assert [path.name for path in (home / "weights").iterdir() if path.name != ".lock"] == []


@pytest.mark.parametrize("script", ["var a=1;", "export{a as b};var c=1;"])
def test_a_script_without_its_exports_at_the_end_is_refused(script: str) -> None:
    with pytest.raises(CheckError, match="does not end in its exports"):
        as_global(script)


def block_of(page: str, name: str) -> Any:
    match = re.search(rf'id="{name}">([^<]*)<', page)
    assert match is not None
    return gzip.decompress(base64.b64decode(match[1]))


@pytest.mark.usefixtures("stand_in")
def test_the_page_holds_the_runtime_and_its_licence(bundle: Path, tmp_path: Path) -> None:
    page = written(of_bundle(bundle), tmp_path)
    assert block_of(page, "runtime") == STAND_IN.wasm
    assert "Copyright (c) Microsoft Corporation" in page
    assert "THE SOFTWARE IS PROVIDED" in page
