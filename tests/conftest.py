"""What all tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # read when it is first imported, by whichever test
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    # Each process has processors of its own: frameworks take as many threads as they see processors.
    number, count = int(os.environ["PYTEST_XDIST_WORKER"][2:]), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    processors = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, processors[number::count] or [processors[number % len(processors)]])

import pytest

from making import Shell, folder

pytest_plugins = ["studio_fixtures"]


# Files that take longest, begun first: else one process works at them while the others have ended. With
# --no-loadscope-reorder pytest-xdist keeps this order.
FIRST = (
    "studio/test_studio_browser.py", "engines/test_keras_applications.py", "export/test_web_browser.py",
    "workflows/test_finetune.py", "export/test_export_weights.py", "engines/test_contract.py", "test_sklearn.py",
    "export/test_export.py", "backbones/test_keras_names.py", "export/test_export_tflite.py", "train/test_steppers.py",
    "server/test_serve_queue.py", "data/test_check.py", "cli/test_finetune_command.py", "docs/test_docs_deploy.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = Path(__file__).parent
    place = {tests / name: number for number, name in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(item.path, len(FIRST)))


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: some tests wait for a browser, a server or another process."""
    from headstart.core.processors import cores

    return cores() + 1


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """The command line, in this process."""
    return Shell(monkeypatch, capsys)


@pytest.fixture
def hears_ctrl_c() -> Iterator[None]:
    """As a job in the background does not by itself."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def half_of_the_cores() -> Iterator[None]:
    """As the diagnosis computes: threads of many small systems wait for each other."""
    from headstart.data.threads import HALF_OF_THE_CORES

    with HALF_OF_THE_CORES:
        yield


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of twelve hand-made pictures. Not to be changed: copy it first."""
    return folder(tmp_path_factory.mktemp("photos"), 12)


@pytest.fixture(scope="session")
def bundle(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model fitted on ``photos``. Not to be changed: copy it first."""
    import headstart as hs

    where = tmp_path_factory.mktemp("bundle") / "model"
    hs.fit(str(photos), pixels=64, cache=False).save(where)
    return where


@pytest.fixture(scope="session")
def small_bundle(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As ``bundle``, at 32 pixels: for what runs the network many times."""
    import headstart as hs

    where = tmp_path_factory.mktemp("small") / "model"
    hs.fit(str(photos), pixels=32, cache=False).save(where)
    return where


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photos and weights beside the project; tests that need it skip where it is absent."""
    root = Path(os.environ.get("HEADSTART_SHARED", Path(__file__).parents[2] / "shared"))
    if not (root / "data").is_dir():
        pytest.skip(f"no real photos and weights at {root} (set HEADSTART_SHARED)")
    return root


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, so that no test reads what another wrote; and no test fetches weights unasked."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HEADSTART_HOME", str(home))
    monkeypatch.setenv("HEADSTART_OFFLINE", "1")
    return home
