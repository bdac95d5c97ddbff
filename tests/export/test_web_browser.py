"""The page of the format web in Chromium: the answers of `predict`, no request, no complaint, photos and camera."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import headstart as hs
from chromium import chromium
from exporting import every_op
from headstart.export import web
from making import packed as as_file
from making import picture
from web_pages import HOSTILE, ask, opened, packed, real_runtime

CLOSE = 1e-3  # of a probability
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache with the real runtime in it."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("runtime")
        real_runtime(patch, home)
        yield home


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium(*CAMERA) as found:
        yield found


@pytest.fixture(scope="module")
def model(bundle: Path) -> hs.Classifier:
    return hs.load(bundle, precision="fp32")


@pytest.fixture(scope="module")
def page(model: hs.Classifier, runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_HOME", str(runtime))
        return model.export("web", tmp_path_factory.mktemp("page") / "it.html").path


@pytest.fixture
def ready(browser: Any, page: Path) -> Any:
    opened(browser, page.as_uri())
    return browser


def compare(browser: Any, model: hs.Classifier, photos: Sequence[bytes], folder: Path, most: float = CLOSE) -> None:
    """Hold the page's answers against those of `predict` for the same files."""
    files = [file_of(folder, content) for content in photos]
    expected, said = model.predict_proba(files), list(model.predictions(files))
    answers = [ask(browser, content) for content in photos]
    assert [answer.get("error") for answer in answers] == [None] * len(photos)
    received = np.array([[answer["probabilities"][name] for name in model.classes] for answer in answers])
    assert np.abs(received - expected).max() < most
    assert [answer["label"] for answer in answers] == [each.label for each in said if isinstance(each, hs.Prediction)]
    assert [answer["unknown"] for answer in answers] == [
        each.unknown for each in said if isinstance(each, hs.Prediction)
    ]


def file_of(folder: Path, content: bytes) -> Path:
    path = folder / f"{hashlib.sha256(content).hexdigest()}.img"
    path.write_bytes(content)
    return path


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def kinds() -> list[bytes]:
    """Files of many kinds, and turned ones."""
    across, down = (Image.fromarray(picture(kind, 100, 150)) for kind in ("bars", "waves"))
    photo = Image.blend(across, down, 0.5).resize((203, 151))  # the answer depends on how it lies
    faded = photo.copy()
    faded.putalpha(Image.linear_gradient("L").rotate(90).resize(photo.size))
    turns = []
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        kind = ("JPEG", "PNG", "WEBP")[turn % 3]
        turns.append(saved(photo, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {})))
    return [
        *turns,
        saved(photo.resize((90, 300)), "JPEG", quality=90),
        saved(photo, "WEBP", lossless=True),
        saved(photo, "BMP"),
        saved(photo.quantize(64), "GIF"),
        saved(photo.convert("L"), "JPEG"),
        saved(photo.quantize(8), "PNG", transparency=bytes(range(0, 256, 32))),
        saved(faded, "PNG"),
        saved(photo.resize((3, 2)), "PNG"),
        saved(photo.resize((1407, 1211)), "JPEG", quality=92),  # of which `predict` decodes a half
    ]


def test_photos_of_every_kind_get_the_answer_of_predict(ready: Any, model: hs.Classifier, tmp_path: Path) -> None:
    assert np.ptp(model.predict_proba([file_of(tmp_path, photo) for photo in kinds()[:8]])[:, 0]) > 0.05
    compare(ready, model, kinds(), tmp_path, 5e-3)  # the last bits of transparent and of large photos differ
    compare(ready, model, [as_file(picture(kind, seed)) for kind in ("bars", "waves") for seed in range(3)], tmp_path)
    assert ready.get_log("browser") == []


@pytest.mark.slow
def test_200_real_photos_get_the_answer_of_predict(
    browser: Any, shared: Path, runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_HOME", str(runtime))
    data = shared / "data" / "cats_dogs"
    model = hs.fit(str(data), pixels=64, cache=False, progress=False)
    model.use_precision("fp32")
    opened(browser, model.export("web", tmp_path / "cats.html").path.as_uri())
    files = [file for kind in ("cats", "dogs") for file in sorted((data / "test" / kind).glob("*.jpg"))[:100]]
    compare(browser, model, [file.read_bytes() for file in files], tmp_path)
    assert len(files) == 200
    assert browser.get_log("browser") == []


def requests(browser: Any) -> list[str]:
    """The addresses that were asked for since the page was opened, by whatever means."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]


class Quiet(SimpleHTTPRequestHandler):
    asked: list[str]

    def log_message(self, *_: object) -> None:
        self.asked.append(self.path)


@pytest.fixture
def server(page: Path) -> Iterator[tuple[str, list[str]]]:
    """As `python -m http.server`, and what it was asked."""
    asked: list[str] = []
    handler = type("Handler", (Quiet,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(page.parent))) as found:
        threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_address[1]}", asked
        found.shutdown()


@pytest.mark.parametrize("place", ["a file", "a server"])
def test_the_page_is_all_that_is_asked_for(
    place: str, browser: Any, page: Path, server: tuple[str, list[str]], tmp_path: Path, model: hs.Classifier
) -> None:
    root, asked = server
    address = page.as_uri() if place == "a file" else f"{root}/{page.name}"
    opened(browser, address)
    compare(browser, model, [as_file(picture("bars", 1))], tmp_path)
    assert [url for url in requests(browser) if not url.startswith(("data:", "blob:", "about:"))] == [address]
    assert asked == ([] if place == "a file" else [f"/{page.name}"])
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.get_log("browser") == []


def test_the_page_is_not_able_to_send_anything(ready: Any, server: tuple[str, list[str]]) -> None:
    root, asked = server
    refused = ready.execute_async_script(
        """
        const [root, done] = arguments, image = new Image(), found = [];
        document.addEventListener("securitypolicyviolation", event => found.push(event.effectiveDirective));
        const form = document.body.appendChild(document.createElement("form"));
        Object.assign(form, {action: `${root}/form`, method: "get"}).submit();
        image.src = `${root}/image`;
        navigator.sendBeacon(`${root}/beacon`, "x");
        const script = document.body.appendChild(document.createElement("script"));
        script.textContent = "window.injected = true";
        fetch(`${root}/fetch`).catch(() => setTimeout(() => done([...found, window.injected]), 200));
        """,
        root,
    )
    assert refused[-1] is None
    assert {"connect-src", "img-src", "form-action", "script-src-elem"} <= set(refused[:-1])
    assert asked == []


# --- what people see --------------------------------------------------------------------------------------------------


def shown(browser: Any, script: str) -> Any:
    return browser.execute_script(f"return {script}")


def wait(browser: Any, script: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 20, 0.02).until(lambda _: shown(browser, script))


def drop_in(browser: Any, *files: Path) -> None:
    """Choose files as people do, and wait for their cards."""
    browser.find_element("id", "files").send_keys("\n".join(map(str, files)))
    wait(browser, f"document.querySelectorAll('.card').length === {len(files)}")
    wait(browser, "document.getElementById('status').textContent.endsWith('.')")


def test_photos_that_are_chosen_get_a_card_each(ready: Any, model: hs.Classifier, tmp_path: Path) -> None:
    names = ("known.png", "noise.png", "broken.jpg", "deep.png")
    known, noise, broken, deep = (tmp_path / name for name in names)
    known.write_bytes(as_file(picture("bars", 3)))
    noise.write_bytes(as_file(np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)))
    broken.write_bytes(b"\xff\xd8\xff broken")
    deep.write_bytes(saved(Image.fromarray(np.full((9, 9), 4000, np.uint16)), "PNG"))
    assert [each.unknown for each in model.predictions([known, noise]) if isinstance(each, hs.Prediction)] == [0, 1]
    drop_in(ready, known, noise, broken, deep)
    cards = [card.text for card in ready.find_elements("class name", "card")][::-1]
    assert [card.splitlines()[0] for card in cards] == ["bars", "Unknown", "No answer", "No answer"]
    assert [card.splitlines()[-1] for card in cards] == list(names)
    assert "The closest class is " in cards[1]
    assert "cannot decode it" in cards[2]
    assert "16 bits" in cards[3]
    first = ready.find_elements("class name", "card")[-1]
    shares = [each.text for each in first.find_elements("class name", "share")]
    assert len(shares) == 3
    assert all(share.endswith(" %") for share in shares)
    assert first.find_element("tag name", "canvas").get_attribute("aria-label") == "photo known.png"
    wait(ready, "document.getElementById('status').textContent === '2 photos were classified, 2 could not be.'")
    ready.find_element("id", "clear").click()
    assert ready.find_elements("class name", "card") == []
    drop_in(ready, known, broken)
    wait(ready, "document.getElementById('status').textContent === '1 photo was classified, 1 could not be.'")


def test_photos_may_be_dropped_or_pasted(ready: Any) -> None:
    script = """
        const [kind, text] = arguments, given = new DataTransfer();
        if (text) given.items.add(new File([Uint8Array.from(atob(text), sign => sign.charCodeAt(0))], "it.png"));
        document.dispatchEvent(kind === "drop"
          ? new DragEvent(kind, {dataTransfer: given}) : new ClipboardEvent(kind, {clipboardData: given}));"""
    for count, kind in enumerate(("drop", "paste"), 1):
        ready.execute_script(script, kind, packed(as_file(picture("waves", count))))
        wait(ready, f"document.querySelectorAll('.card canvas').length === {count}")
        wait(ready, "document.getElementById('status').textContent === 'it.png: waves.'")
    ready.execute_script(script, "drop", "")
    assert "That was no file" in ready.find_element("id", "status").text


def test_the_camera_is_followed_and_a_frame_can_be_kept(
    browser: Any, server: tuple[str, list[str]], page: Path
) -> None:
    for address in (page.as_uri(), f"{server[0]}/{page.name}"):
        opened(browser, address)
        browser.find_element("id", "start").click()
        wait(browser, "document.querySelector('#live h3') !== null")
        browser.find_element("id", "keep").click()
        wait(browser, "document.querySelectorAll('.card canvas').length === 1")
        browser.find_element("id", "stop").click()
        assert shown(browser, "document.getElementById('video').srcObject === null")
        assert not browser.find_element("id", "camera").is_displayed()
        assert browser.get_log("browser") == []


@pytest.fixture
def odd(browser: Any) -> Iterator[Callable[[str], None]]:
    """Gives the next pages a browser that is odd in some way: runs a script before theirs."""
    made = []

    def add(script: str) -> None:
        made.append(browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script}))

    yield add
    for each in made:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", each)


def test_a_browser_that_changes_pixels_is_found_out(browser: Any, page: Path, odd: Callable[[str], None]) -> None:
    opened(browser, page.as_uri())
    assert browser.find_element("id", "status").text == "Ready."
    odd("""const kind = CanvasRenderingContext2D.prototype, real = kind.getImageData;
        kind.getImageData = function (...place) {
          const found = real.apply(this, place);
          found.data[5] ^= 1;
          return found;
        };""")
    opened(browser, page.as_uri())
    assert "this browser changes the pixels" in browser.find_element("id", "status").text


def test_without_a_camera_the_page_says_why(ready: Any) -> None:
    ready.execute_script("Object.defineProperty(navigator, 'mediaDevices', {value: undefined})")
    ready.find_element("id", "start").click()
    assert "https or localhost" in ready.find_element("id", "status").text
    assert not ready.find_element("id", "camera").is_displayed()


@pytest.mark.parametrize("width", [360, 900])
def test_hostile_names_are_shown_as_text_on_any_width(
    width: int, browser: Any, runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_HOME", str(runtime))
    package = replace(every_op(), classes=HOSTILE)
    web.write(package, tmp_path / "it.html")
    opened(browser, (tmp_path / "it.html").as_uri(), width)
    (tmp_path / "photo.png").write_bytes(as_file(picture("waves", 1)))
    drop_in(browser, tmp_path / "photo.png")
    browser.execute_script("for (const each of document.querySelectorAll('details')) each.open = true")
    names = [each.get_attribute("textContent") for each in browser.find_elements("css selector", ".bars .name")]
    assert sorted(names) == sorted(HOSTILE)
    assert shown(browser, "document.images.length") == 0
    widths = "[innerWidth, document.body.parentNode.clientWidth, document.body.parentNode.scrollWidth]"
    inner, seen, needed = shown(browser, widths)
    assert (inner, needed) == (width, seen)
    assert browser.get_log("browser") == []


def test_the_keyboard_reaches_everything(ready: Any) -> None:
    from selenium.webdriver import ActionChains, Keys

    reached = []
    for _ in range(4):
        ActionChains(ready).send_keys(Keys.TAB).perform()
        reached.append(shown(ready, "document.activeElement.id || document.activeElement.textContent"))
    assert reached == ["files", "start", "About this model", "Licence of the runtime"]
    outline = shown(ready, "getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
