"""The Dockerfile and the unit for systemd, as far as they can be checked without either."""

from __future__ import annotations

import configparser
import fnmatch
import gc
import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
import warnings
from pathlib import Path

import httpx
import pytest
import typer.main

from headstart.cli.app import command_line
from headstart.core.errors import UsageError
from headstart.server.settings import TOKEN, Settings, read_token
from making import packed, picture
from serving import serving
from serving_process import process

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")


def steps() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, " ".join(rest.split())) for word, _, rest in (line.partition(" ") for line in lines)]


def taken(path: str) -> bool:
    """Whether Docker is given a file, by .dockerignore."""
    found = True
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.removeprefix("!")
        if line and not line.startswith("#") and fnmatch.fnmatch(path, pattern):
            found = line.startswith("!")
    return found


def test_what_is_copied_is_there_and_enough() -> None:
    copied = [shlex.split(rest)[:-1] for word, rest in steps() if word == "COPY" and "--from" not in rest]
    names = [name.removeprefix("./") for each in copied for name in each]
    assert all((ROOT / name).exists() and taken(name) for name in names)
    assert not any(map(taken, ("tests", "docs", ".git", "benchmarks")))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = {project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml", "src"}
    assert needed <= set(names)


def test_what_is_installed_is_the_light_core_with_this_extra() -> None:
    (install,) = [rest for word, rest in steps() if word == "RUN" and "pip install" in rest]
    extras = re.findall(r'"\.\[([\w,]+)\]"', install)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert extras == ["serve"]
    every = [*project["dependencies"], *project["optional-dependencies"]["serve"]]
    names = {re.split(r"[\[>=<]", each)[0] for each in every}
    assert {"fastapi", "prometheus-client", "uvicorn", "openvino"} <= names
    assert not names & {"torch", "tensorflow", "keras", "onnx"}


def test_it_runs_without_root_and_as_the_command_takes_it() -> None:
    last = steps()[[word for word, _ in steps()].index("FROM", 1) :]
    words = dict(last)
    assert [word for word, _ in last].index("USER") > max(
        n for n, (word, _) in enumerate(last) if word in ("RUN", "COPY")
    )
    assert words["USER"].isdigit()
    assert int(words["USER"]) > 0
    assert all(":" in rest and "latest" not in rest for word, rest in steps() if word == "FROM")
    command = json.loads(words["ENTRYPOINT"]) + json.loads(words["CMD"])
    assert command[:2] == ["headstart", "serve"]
    context = typer.main.get_command(command_line(["serve"])).commands["serve"].make_context("serve", command[2:])  # type: ignore[attr-defined]
    assert (context.params["host"], context.params["models"], context.params["port"]) == ("0.0.0.0", ["/model"], 8000)
    assert words["EXPOSE"] == "8000"
    compile(json.loads(words["HEALTHCHECK"].partition("CMD ")[2])[2], "health", "exec")


def test_nothing_is_written(small_bundle: Path, tmp_path: Path) -> None:
    none = tmp_path / "none"
    places = dict.fromkeys(("HOME", "TMPDIR", "HEADSTART_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"), str(none))
    before = sorted(os.listdir(small_bundle))
    with process(str(small_bundle), **places, PYTHONDONTWRITEBYTECODE="1") as server:
        assert httpx.post(f"{server.url}/predict", content=packed(picture("bars", 1))).status_code == 200
        assert httpx.get(f"{server.url}/docs").status_code == 200
    assert not none.exists()
    assert sorted(os.listdir(small_bundle)) == before


def test_the_unit_of_the_page() -> None:
    (text,) = re.findall(r"```ini\n(.*?)```", PAGE, re.DOTALL)
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(text)
    service = unit["Service"]
    words = shlex.split(service["ExecStart"])
    assert words[0].endswith("/headstart")
    typer.main.get_command(command_line(["serve"])).commands["serve"].make_context("serve", words[2:])  # type: ignore[attr-defined]
    assert service["DynamicUser"] == "yes"
    assert "-HUP" in service["ExecReload"]
    assert int(service["TimeoutStopSec"]) > 30


def test_the_commands_of_the_page_work(small_bundle: Path, tmp_path: Path) -> None:
    http = pytest.importorskip("tritonclient.http")
    if shutil.which("curl") is None or shutil.which("bash") is None:
        pytest.skip("no curl or no bash")
    for name in ("cat.jpg", "a.jpg", "b.png"):
        (tmp_path / name).write_bytes(packed(picture("bars", 1), "PNG" if name == "b.png" else "JPEG"))
    commands = [line for line in PAGE.splitlines() if line.startswith(("curl ", "printf "))]
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(commands) == 4
    with serving({"model": str(small_bundle)}) as running:
        for command in commands:
            here = command.replace("127.0.0.1:8000", f"127.0.0.1:{running.port}")
            done = subprocess.run(["bash", "-c", here], check=True, capture_output=True, cwd=tmp_path)
            assert {each["label"] for each in json.loads(done.stdout)["predictions"]} == {"bars"}
        here = code.replace("127.0.0.1:8000", f"127.0.0.1:{running.port}").replace("cat.jpg", str(tmp_path / "cat.jpg"))
        known: dict[str, object] = {}
        with warnings.catch_warnings(action="ignore"):  # the page leaves the file and the client open
            exec(here, known)
            gc.collect()
        answer = known["answer"]
        assert isinstance(answer, http.InferResult)
        assert answer.as_numpy("label").tolist() == [b"bars"]


def test_the_page_tells_the_defaults() -> None:
    limits = dict(re.findall(r"^\| `--([\w-]+)` \| ([\d.]+)", PAGE, re.MULTILINE))
    known = {name.replace("_", "-"): value for name, value in vars(Settings()).items() if name not in ("token", "log")}
    assert {name: float(value) for name, value in limits.items()} == known


@pytest.mark.parametrize("text", ["", "short", "with a blank in it", "ünglücklich-lang", "x\x00" * 9])
def test_tokens_that_are_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match="expected a token of at least 8"):
        read_token(str(tmp_path / "token"))


def test_where_a_token_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    assert read_token(None) == ""
    monkeypatch.setenv(TOKEN, "of-the-environment")
    assert read_token(None) == "of-the-environment"
    monkeypatch.setenv(TOKEN, "")  # whoever sets it wants one
    with pytest.raises(UsageError, match=f"{TOKEN} is empty"):
        read_token(None)
    (tmp_path / "token").write_text("of-the-file\n")
    assert read_token(str(tmp_path / "token")) == "of-the-file"
    assert "of-the-file" not in repr(Settings(token="of-the-file"))
