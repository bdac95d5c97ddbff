"""The page in a real browser: quiet, alone, wide enough for a phone, readable in light and dark, and on paper."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import headstart as hs
from chromium import chromium
from headstart.model.files import PAGE
from headstart.report.records import Content
from headstart.report.write import report_files
from reports import HOSTILE, evaluated, full_diagnosis, full_measures, mistaken, trained

PHONE, DESK = (360, 800), (1100, 900)
CONTRAST = 4.5  # WCAG 2.1, of text

COLOURS = """
const shown = [];
const papers = (node) => {
  const found = [];
  for (let at = node; at; at = at.parentElement) found.push(getComputedStyle(at).backgroundColor);
  return found;
};
for (const node of document.querySelectorAll('p, h1, h2, h3, td, th, dt, dd, li, summary, pre, .caption, .kind')) {
  if (node.textContent.trim() && node.offsetParent)
    shown.push([node.className + ' ' + node.tagName, getComputedStyle(node).color, papers(node)]);
}
for (const node of document.querySelectorAll('svg text'))
  shown.push(['svg text', getComputedStyle(node).fill, papers(node.closest('svg').parentElement)]);
return [getComputedStyle(document.body).backgroundColor, shown];
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def content(bundle: Path, photos: Path) -> Content:
    model, dataset = hs.load(bundle), hs.open_source(photos)
    names = [sample.name for sample in dataset.samples]
    bars = [name for name in names if name.startswith("bars")][:3]
    scratch, tuned = trained()
    model.record = replace(model.record, scratch=scratch, finetune=tuned)
    result = replace(
        evaluated(model.classes), wrong=tuple(replace(each, label="bars") for each in mistaken(bars, "xy").wrong or ())
    )
    return Content(model, result, full_diagnosis(names, model.classes), photos=dataset, **full_measures())


@pytest.fixture(scope="module")
def page(content: Content, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / PAGE
    path.write_bytes(report_files(content).files[PAGE])
    return path.as_uri()


@pytest.fixture(scope="module")
def hostile(content: Content, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page of names that are hard to show."""
    path = tmp_path_factory.mktemp("hostile") / PAGE
    model = hs.Classifier.__new__(hs.Classifier)
    vars(model).update(vars(content.classifier) | {"classes": HOSTILE})
    model.record = replace(content.classifier.record, data=HOSTILE[4], not_measured=HOSTILE)
    verdict = full_diagnosis(HOSTILE, HOSTILE)
    path.write_bytes(report_files(Content(model, evaluated(HOSTILE, names=HOSTILE), verdict)).files[PAGE])
    return path.as_uri()


DRAWN = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))"


def opened(browser: Any, page: str, size: tuple[int, int] = DESK, scheme: str = "light") -> None:
    """Open a page and wait until it is drawn: what is printed before that is empty."""
    phone = size == PHONE
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": phone}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})
    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # what came before
    browser.get(page)
    browser.execute_async_script(DRAWN)


@pytest.mark.parametrize("which", ["page", "hostile"])
def test_the_browser_has_nothing_to_complain_of(browser: Any, which: str, request: pytest.FixtureRequest) -> None:
    opened(browser, request.getfixturevalue(which))
    assert browser.get_log("browser") == []


def test_nothing_is_asked_for_beyond_the_page(browser: Any, page: str) -> None:
    opened(browser, page)
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]
    assert page in asked
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}
    assert [url for url in asked if url.startswith("file:")] == [page]
    assert browser.execute_script("return document.images.length") > 8
    assert browser.execute_script("return [...document.images].every(one => one.naturalWidth > 0)")


@pytest.mark.parametrize("which", ["page", "hostile"])
@pytest.mark.parametrize("size", [PHONE, DESK])
def test_nothing_is_wider_than_the_screen(
    browser: Any, which: str, size: tuple[int, int], request: pytest.FixtureRequest
) -> None:
    opened(browser, request.getfixturevalue(which), size)
    script = "const page = document.documentElement; return [innerWidth, page.clientWidth, page.scrollWidth]"
    for prepare in ("", "for (const one of document.querySelectorAll('details')) one.open = true;"):
        inner, shown, needed = browser.execute_script(prepare + script)
        assert (inner, needed) == (size[0], shown)


Colour = tuple[float, float, float]


def colour_of(text: str, below: Colour = (255, 255, 255)) -> Colour:
    """What "rgb(…)" or "rgba(…)" looks like on a colour."""
    red, green, blue, *alpha = [float(part) for part in re.findall(r"[\d.]+", text)]
    share = alpha[0] if alpha else 1.0
    mixed = [share * over + (1 - share) * under for over, under in zip((red, green, blue), below, strict=True)]
    return mixed[0], mixed[1], mixed[2]


def paper_of(papers: Sequence[str]) -> Colour:
    """What a reader sees behind a text, of the backgrounds from it upwards."""
    found: Colour = (255, 255, 255)
    for text in reversed(papers):
        found = colour_of(text, found)
    return found


def luminance(colour: Colour) -> float:
    shares = [part / 255 for part in colour]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: Colour, second: Colour) -> float:
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def hard_to_read(shown: Sequence[tuple[str, str, Sequence[str]]]) -> list[tuple[str, str, Sequence[str]]]:
    return [one for one in shown if contrast(colour_of(one[1]), paper_of(one[2])) < CONTRAST]


def test_contrast_is_that_of_black_on_white() -> None:
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert paper_of(["rgba(0, 0, 0, 0.5)", "rgba(9, 9, 9, 0)", "rgb(100, 0, 200)"]) == (50, 0, 100)


def test_light_and_dark_differ_and_both_can_be_read(browser: Any, page: str) -> None:
    backgrounds = []
    for scheme in ("light", "dark"):
        opened(browser, page, scheme=scheme)
        background, shown = browser.execute_script(COLOURS)
        assert len(shown) > 100
        backgrounds.append(luminance(colour_of(background)))
        assert hard_to_read(shown) == []
    assert backgrounds[0] > 0.8
    assert backgrounds[1] < 0.05


@pytest.mark.parametrize("size", [PHONE, DESK])
def test_pictures_are_larger_after_a_click_and_small_after_another(
    browser: Any, page: str, size: tuple[int, int]
) -> None:
    opened(browser, page, size)
    for tile in browser.find_elements("css selector", "details.photo")[-2:]:
        image, button = tile.find_element("css selector", "img"), tile.find_element("css selector", "summary")
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
        before, about = image.size["height"], tile.find_element("css selector", ".about")
        assert not about.is_displayed()
        image.click()
        assert image.size["height"] > 1.3 * before
        assert about.is_displayed()
        image.click()
        assert image.size["height"] == before


def test_pictures_are_opened_from_the_keyboard(browser: Any, page: str) -> None:
    opened(browser, page)
    tile = browser.find_element("css selector", "details.photo")
    tile.find_element("css selector", "summary").send_keys(" ")
    assert tile.get_attribute("open")


def test_it_prints(browser: Any, page: str) -> None:
    opened(browser, page, scheme="dark")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_async_script(DRAWN)
    answer = browser.execute_cdp_cmd("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.69})
    raw = base64.b64decode(answer["data"])
    assert raw.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", raw)) <= 20
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": features})
    background, shown = browser.execute_script(COLOURS)
    assert luminance(colour_of(background)) == pytest.approx(1)
    assert hard_to_read(shown) == []
