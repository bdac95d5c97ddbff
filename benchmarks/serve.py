"""Requests a second and their times: `headstart serve` against other servers, with 1, 8 and 64 clients.

Run: python benchmarks/serve.py --peers FOLDER [--quick]

wrk (apt install wrk) sends real photos in a form. All servers classify with the same fitted network, and are asked
about every photo before they are measured. FOLDER, by default `peers` beside the project, has a virtual environment for
each of the other servers; one that is not there is left out:

    python -m venv FOLDER/litserve; FOLDER/litserve/bin/pip install litserve==0.2.19 onnxruntime==1.32.0 pillow \
        python-multipart uvloop httptools
    python -m venv FOLDER/bentoml; FOLDER/bentoml/bin/pip install bentoml==1.4.40 onnxruntime==1.32.0 pillow uvloop \
        httptools
    python -m venv FOLDER/mlserver; FOLDER/mlserver/bin/pip install mlserver==1.7.1 onnxruntime==1.32.0 pillow \
        'uvloop<0.22'

Then Headstart alone: ten minutes of load, whose memory is looked at, and a flood of bad requests beside good ones.
"""

from __future__ import annotations

import base64
import io
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import wrk
from harness import ROOT, Goal, arguments, finish, in_child, median, shared
from servers import Answer, Running, Server, headstart, running, servers

CLIENTS = (1, 8, 64)
PHOTOS, BYTES = 8, 40_000
CLOSE = 1e-2
FASTER = {
    "eager PyTorch": 12,
    "eager PyTorch, one thread": 6,
    "litserve": 3,
    "bentoml": 3,
    "mlserver": 3,
}
WARM_UP = 0.1  # share of the long load whose memory does not count yet
FLAT = 0.05
Figures = dict[str, float]


def main() -> None:
    """A row for each server and number of clients; then the long load, then the flood."""
    parser = arguments(__doc__, 3)
    parser.add_argument("--peers", default=str(ROOT.parent / "peers"), help="the folder of virtual environments")
    parser.add_argument("--seconds", type=float, default=8, help="of each load")
    parser.add_argument("--soak", type=float, default=600, help="seconds of the long load")
    parser.add_argument("--flood", type=float, default=20, help="seconds of the flood")
    options = parser.parse_args()
    if options.quick:
        options.repeats, options.seconds, options.soak, options.flood = 1, 2, 20, 4
    data = shared("data", "cats_dogs")
    photos = [path.read_bytes() for path in some_photos(data / "test")]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        expected = in_child(partial(fitted, data, folder, some_photos(data / "test")))
        found = servers(folder / "model", folder / "model.onnx", Path(options.peers).absolute())
        there = [server for server in found if not server.missing]
        skipped = {server.name: server.missing for server in found if server.missing}
        for name, reason in skipped.items():
            print(f"{name} is left out: {reason}")
        versions = {server.name: server.version() for server in there if server.package}
        turns = all_turns(there, photos, expected, folder, options)
        table(turns)
        soak = long_load(folder, photos, expected, options.soak)
        flood = flooded(folder, photos, options.flood)
    del options.peers  # a place on this machine; the versions below say what was there
    rows = {name: {clients: medians(each) for clients, each in row.items()} for name, row in turns.items()}
    result = {
        "photos": [len(photo) for photo in photos],
        "servers": rows,
        "turns": turns,
        "peers": versions,
        "skipped": skipped,
        "soak": soak,
        "flood": flood,
    }
    finish("serve", result, goals(turns, soak, flood), options)


def some_photos(folder: Path) -> list[Path]:
    """Those whose files are nearest to 40 kB."""
    return sorted(folder.rglob("*.jpg"), key=lambda path: abs(path.stat().st_size - BYTES))[:PHOTOS]


def fitted(data: Path, folder: Path, photos: Sequence[Path]) -> list[Answer]:
    """Fit a model, write it as a folder and as ONNX, and return what `predict` says."""
    import headstart as hs

    model = hs.fit(data, cache=False, diagnose=False, progress=False)
    model.save(folder / "model")
    model.use_precision("fp32")
    model.export("onnx", folder / "model.onnx", takes="pixels")  # photos of several sizes make no batch
    loaded = hs.load(folder / "model")
    probabilities = loaded.predict_proba([str(photo) for photo in photos])
    return [(loaded.classes[int(row.argmax())], float(row.max())) for row in probabilities]


def check(server: Running, photos: Sequence[bytes], expected: Sequence[Answer], clients: int = 16) -> None:
    """Ask about every photo, one after the other, then many at a time; ends the benchmark where an answer is wrong."""
    server.wait(photos[0])
    with ThreadPoolExecutor(clients) as pool:
        alone = [server.ask(photo) for photo in photos]
        together = list(pool.map(server.ask, [*photos] * 8))
    for place, (label, probability) in enumerate([*alone, *together]):
        right = expected[place % len(photos)]
        if label != right[0] or abs(probability - right[1]) > CLOSE:
            raise SystemExit(f"{server.server.name} says {label} {probability:.4f}; predict says {right}.")


def all_turns(
    there: Sequence[Server], photos: Sequence[bytes], expected: Sequence[Answer], folder: Path, options: Any
) -> dict[str, dict[int, list[Figures]]]:
    """The figures of each server and number of clients, turn by turn; every second turn in the opposite order."""
    found: dict[str, dict[int, list[Figures]]] = {server.name: {n: [] for n in CLIENTS} for server in there}
    bodies = {
        server.name: wrk.written([server.body(photo) for photo in photos], folder / server.name) for server in there
    }
    for turn in range(options.repeats):
        for server in there if turn % 2 == 0 else reversed(there):
            with running(server) as process:
                check(process, photos, expected)
                wrk.load(process.url, bodies[server.name], 8, options.seconds / 4)
                for clients in CLIENTS:
                    figures = loaded(process, bodies[server.name], clients, options.seconds)
                    found[server.name][clients].append(figures)
                    print(f"turn {turn + 1}  {line(server.name, clients, figures)}", flush=True)
    return found


def loaded(process: Running, bodies: Path, clients: int, seconds: float) -> Figures:
    """One load: requests a second, times in ms, processor time of a request in ms, memory in MB, errors."""
    before = process.cpu()
    seen = wrk.load(process.url, bodies, clients, seconds)
    cpu = process.cpu() - before
    return {
        "rate": seen.rate,
        "p50": seen.p50,
        "p99": seen.p99,
        "cpu": cpu / max(1, seen.requests) * 1000,
        "memory": process.memory(),
        "errors": seen.errors,
    }


def medians(turns: Sequence[Figures]) -> Figures:
    """Of each figure; of errors the sum."""
    return {name: (sum if name == "errors" else median)([turn[name] for turn in turns]) for name in turns[0]}


def line(name: str, clients: int, figures: Figures) -> str:
    """A row of the table."""
    return (
        f"{name:<26}{clients:>4}{figures['rate']:>9.1f}/s{figures['p50']:>9.1f}{figures['p99']:>9.1f} ms"
        f"{figures['cpu']:>8.2f} ms{figures['memory']:>7.0f} MB{figures['errors']:>6.0f}"
    )


def table(turns: Mapping[str, Mapping[int, Sequence[Figures]]]) -> None:
    """The medians."""
    print(f"\n{'medians':<24}clients   requests      p50      p99   processors  memory errors")
    for name, row in turns.items():
        for clients, figures in row.items():
            print(line(name, clients, medians(figures)))


def long_load(folder: Path, photos: Sequence[bytes], expected: Sequence[Answer], seconds: float) -> dict[str, Any]:
    """64 clients for long: the memory, second by second, and errors."""
    with running(headstart(folder / "model")) as process:
        check(process, photos, expected)
        sending = wrk.start(process.url, folder / "headstart", CLIENTS[-1], seconds)
        memory = []
        while sending.poll() is None:
            memory.append(process.memory())
            time.sleep(max(0.2, seconds / 600))
        seen = wrk.finished(sending)
    after = memory[round(len(memory) * WARM_UP) : -1]
    middle = median(after)
    apart = max(abs(each / middle - 1) for each in after)
    print(
        f"\n{seconds:.0f} s with {CLIENTS[-1]} clients: {seen.requests} requests, {seen.errors} errors, "
        f"{middle:.0f} MB ± {apart:.1%}"
    )
    return {"load": vars(seen), "errors": seen.errors, "memory": memory, "apart": apart}


def flooded(folder: Path, photos: Sequence[bytes], seconds: float) -> dict[str, Any]:
    """Bad requests from 16 clients beside good ones from 8: all bad ones are refused, and no good one."""
    bad = wrk.written(bad_bodies(photos[0]), folder / "bad")
    with running(headstart(folder / "model", "--max-megabytes=1")) as process:
        process.wait(photos[0])
        sending = wrk.start(process.url, bad, 16, seconds + 2)
        good = wrk.load(process.url, folder / "headstart", 8, seconds)
        refused = wrk.finished(sending)
        faults = process.said().count('"event": "fault"')
    print(
        f"{seconds:.0f} s of bad requests: {refused.status} of {refused.requests} refused; {faults} faults of the "
        f"server; of {good.requests} good ones {good.errors} lost"
    )
    return {"good": vars(good), "bad": vars(refused), "lost": good.errors, "faults": faults,
            "taken": refused.requests - refused.status}  # fmt: skip


def bad_bodies(photo: bytes) -> list[wrk.Body]:
    """Damaged, empty, no image, too many pixels, too large, no JSON, another type."""
    from PIL import Image

    bomb = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(bomb, "PNG")
    json = "application/json"
    return [
        wrk.form(photo[: len(photo) // 2]),
        wrk.form(b""),
        wrk.form(b"no image " * 1000),
        wrk.form(bomb.getvalue()),
        wrk.form(photo * 30),
        wrk.Body(json, b'{"image": '),
        wrk.Body(json, b'{"image": "' + base64.b64encode(photo)[:-3] + b'"}'),
        wrk.Body("multipart/form-data; boundary=another", wrk.form(photo).content),
        wrk.Body("text/plain", photo),
    ]


def goals(
    turns: Mapping[str, Mapping[int, Sequence[Figures]]], soak: Mapping[str, Any], flood: Mapping[str, Any]
) -> list[Goal]:
    """What the issue asks for; of servers that are not there nothing."""
    most, ours = CLIENTS[-1], turns["headstart"]
    found = []
    for name, least in FASTER.items():
        if name in turns:
            pairs = list(zip(ours[most], turns[name][most], strict=True))
            times = median([own["rate"] / other["rate"] for own, other in pairs])
            found.append(Goal(f"requests a second over those of {name}, {most} clients", times, least=least))
            share = median([own["p99"] / other["p99"] for own, other in pairs])
            found.append(Goal(f"p99 over that of {name}", share, most=1))
    errors = sum(turn["errors"] for row in ours.values() for turn in row)
    return [
        *found,
        Goal("errors", errors + soak["errors"], most=0),
        Goal("memory of the long load from its median, greatest distance", soak["apart"], most=FLAT),
        Goal("good requests lost beside bad ones", flood["lost"], most=0),
        Goal("bad requests taken, and faults of the server", flood["taken"] + flood["faults"], most=0),
    ]


if __name__ == "__main__":
    main()
