"""fit and predict on a Ray cluster of several nodes on this machine: as one process, also where a node is killed."""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_shards import SPACE, rows_of

import headstart as hs
from headstart.backbones.download import find_weights
from headstart.backbones.published import BACKBONES
from headstart.core.errors import MachineError
from headstart.data.near_copies import near_copies
from headstart.engines.registry import open_backbone
from headstart.learn.regularisation_path import Design
from headstart.scale import fit as fit_module
from headstart.scale import matrix, pairs
from headstart.scale.cluster import cluster
from headstart.scale.fit import fit_on_ray
from headstart.scale.matrix import ShardedMatrix, ShardFile, SpreadDesign
from headstart.scale.nodes import check_nodes
from headstart.scale.pool import make_pool
from headstart.scale.shards import read_whole, write_shard
from making import Shell, packed, picture

pytest.importorskip("ray", reason="needs the extra 'ray'")
pytestmark = pytest.mark.filterwarnings("ignore:::ray", "ignore:.*ray.*:FutureWarning", "ignore::ResourceWarning")
QUICK = {  # a node that was killed is missed after a few seconds; one that is slow is not
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 20_000,
    "health_check_failure_threshold": 4,
}
SEVERAL = 300  # photos of a class, enough for several units


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A cluster of two nodes with a CPU each."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": QUICK}
    found = Cluster(initialize_head=True, head_node_args=head)
    found.add_node(num_cpus=1)
    found.wait_for_nodes()
    yield found
    found.shutdown()


@pytest.fixture
def runner(nodes: Any) -> str:
    return f"ray:{nodes.address}"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos with a copy, and one that cannot be read."""
    root = tmp_path_factory.mktemp("data")
    for kind in ("bars", "discs", "waves"):
        (root / kind).mkdir()
        for seed in range(SEVERAL):
            (root / kind / f"{seed}.png").write_bytes(packed(picture(kind, seed, 32)))
    shutil.copy(root / "bars" / "7.png", root / "bars" / "again.png")
    (root / "discs" / "half.png").write_bytes((root / "discs" / "0.png").read_bytes()[:200])
    return root


@pytest.fixture(scope="module")
def alone(data: Path) -> hs.Classifier:
    """What one process makes of them."""
    return hs.fit(str(data), pixels=32, cache=False)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def assert_same(found: hs.Classifier, wanted: hs.Classifier) -> None:
    """Two classifiers of the same photos, split alike."""
    assert found.classes == wanted.classes
    assert found.fitted_on == wanted.fitted_on
    assert found.record.result is not None
    assert wanted.record.result is not None
    assert found.record.result.accuracy == wanted.record.result.accuracy
    assert {(each.name, each.kind) for each in found.record.left_out} == {
        (each.name, each.kind) for each in wanted.record.left_out
    }
    assert found.unknown is not None
    assert wanted.unknown is not None
    np.testing.assert_array_equal(found.unknown.rows, wanted.unknown.rows)
    assert found.golden is not None
    assert wanted.golden is not None
    largest = np.abs(wanted.golden.logits).max()
    assert np.abs(found.golden.logits - wanted.golden.logits).max() < 1e-6 * largest
    images = [photo for kind in ("bars", "discs", "waves") for photo in (picture(kind, seed) for seed in range(8))]
    np.testing.assert_allclose(found.predict_proba(images), wanted.predict_proba(images), atol=1e-6, rtol=0)


def test_it_is_the_classifier_of_one_process(
    data: Path, alone: hs.Classifier, store: Path, runner: str, tmp_path: Path, shell: Shell
) -> None:
    model = tmp_path / "model"
    said = shell("fit", data, "--out", model, "--pixels", 32, "--runner", runner, "--store", store, "--json")
    assert (said.code, said.json["computed"], said.json["from_store"]) == (0, 901, 0)
    assert (said.json["images"], said.json["model"]) == (902, str(model))
    assert Path(said.json["report"]).stat().st_size > 10_000
    assert_same(hs.load(model), alone)
    assert os.listdir(store / "models") == []


def test_a_rerun_computes_what_is_missing(
    data: Path, store: Path, runner: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An image more, and those of a shard that was damaged; files have other times, but the same contents."""
    changed = shutil.copytree(data, tmp_path / data.name)
    (changed / "waves" / "new.png").write_bytes(packed(picture("waves", SEVERAL, 32)))
    (shards,) = (store / "shards").iterdir()
    damaged = sorted(shards.rglob("*.arrow"))[0]
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    images = sum(len(read_whole(path)[1]) for path in shards.rglob("*.arrow") if path != damaged)
    damaged.write_bytes(content)
    found = fit_on_ray(changed, tmp_path / "second", runner=runner, store=store, pixels=32)
    assert "1 shard in" in capsys.readouterr().err
    assert 1 < found.record.computed <= 902 - images + 1
    assert found.record.computed + found.record.from_store == 902
    assert_same(hs.load(found.path), hs.fit(str(changed), pixels=32, cache=False))


def test_a_node_that_is_killed_in_the_middle_changes_nothing(
    data: Path, nodes: Any, runner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is there twice, nothing is lost: the model is that of one process.

    Weights come from this process: no worker has the file, which is gone before one is started.
    """
    weights = tmp_path / "weights.pth"
    shutil.copy(str(find_weights(BACKBONES["efficientnet_lite0"].weights)), weights)

    def opened_once(*args: Any, **more: Any) -> Any:
        found = open_backbone(*args, **more)
        weights.unlink()
        return found

    monkeypatch.setattr(fit_module, "open_backbone", opened_once)
    victim, store, found = nodes.add_node(num_cpus=1), tmp_path / "store", list[Any]()
    nodes.wait_for_nodes()
    shards = store / "shards"

    def kill() -> None:
        while not list(shards.rglob("*.arrow")):
            time.sleep(0.01)
        found.append(len(list(shards.rglob("*.arrow"))))
        nodes.remove_node(victim, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    fitted = fit_on_ray(data, tmp_path / "model", runner=runner, store=store, pixels=192, weights=weights)
    killer.join()
    units = len(list(shards.rglob("*.arrow")))
    assert 0 < found[0] < units
    assert fitted.record.computed + fitted.record.from_store == 901
    assert_same(hs.load(fitted.path), hs.fit(str(data), pixels=192, cache=False))


def test_predictions_are_those_of_one_process(
    data: Path, alone: hs.Classifier, runner: str, tmp_path: Path, shell: Shell
) -> None:
    model, store = alone.save(tmp_path / "model"), tmp_path / "store"
    (tmp_path / "broken.png").write_bytes(b"")
    paths = [str(data / "waves"), str(tmp_path / "broken.png"), str(data / "bars" / "3.png")]
    more = ("--runner", runner, "--store", store, "--top", 2, "--json")
    said = shell("predict", model, *paths, "--out", tmp_path / "a.csv", *more)
    wanted = hs.predict_table(model, paths, tmp_path / "b.csv", top=2)
    assert said.code == 3  # for the broken one
    found = {key: said.json[key] for key in ("rows", "labels", "unknown", "unreadable", "kept")}
    assert [*found.values()] == [wanted.images, wanted.labels, wanted.unknown, wanted.unreadable, 0]
    tables = [list(csv.DictReader((tmp_path / f"{name}.csv").open())) for name in "ab"]
    assert len(tables[0]) == SEVERAL + 2
    for one, other in zip(*tables, strict=True):
        assert {k: v for k, v in one.items() if "prob" not in k} == {k: v for k, v in other.items() if "prob" not in k}
        for name in ("probability", "probability_2"):
            assert one[name] == other[name] or abs(float(one[name]) - float(other[name])) < 1e-6
    assert os.listdir(store / "predictions") == []


def test_sums_over_shards_are_those_of_one_matrix(runner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [rows_of(count, seed) for seed, count in enumerate((700, 300, 1500))]
    for number, rows in enumerate(parts):
        write_shard(tmp_path / f"{number}.arrow", rows, SPACE)
    files = [ShardFile(tmp_path / f"{number}.arrow", len(rows.samples)) for number, rows in enumerate(parts)]
    chosen = np.random.default_rng(0).permutation(2500)[:2100]
    labels = np.arange(2100) % 7
    wanted = Design(np.concatenate([each.features for each in parts]), chosen)
    monkeypatch.setattr(matrix, "CHUNK", 512)
    centres = wanted.sum(labels, 7)
    with cluster(runner):
        found = SpreadDesign(ShardedMatrix(files, SPACE, 5), chosen)
        np.testing.assert_allclose(found.exact_sum(labels, 7), wanted.exact_sum(labels, 7), rtol=1e-12)
        np.testing.assert_allclose(found.scatter(centres, labels), wanted.scatter(centres, labels), rtol=1e-12)
        np.testing.assert_allclose(found.scatter(centres[0]), wanted.scatter(centres[0]), rtol=1e-12)


def test_near_copies_are_those_of_one_process(runner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (1300, 4, 4)).repeat(4, axis=1).repeat(4, axis=2)
    thumbnails = (coarse + rng.normal(0, 20, coarse.shape)).clip(0, 255).astype(np.uint8)
    thumbnails[700:760] = thumbnails[10:70] ^ 1
    wanted = near_copies(thumbnails)
    assert len(np.unique(wanted)) <= 1240
    monkeypatch.setattr(pairs, "MANY", 0)
    monkeypatch.setattr(pairs, "FEWEST", 2)
    with cluster(runner):
        np.testing.assert_array_equal(near_copies(thumbnails, pairs.pairs_on_cluster), wanted)


def test_a_machine_without_bf16_is_not_mixed_with_others(runner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from headstart.scale import pool

    with cluster(runner):
        nodes = [replace(node, precision="bf16" if place > 0 else "int8") for place, node in enumerate(check_nodes())]
        monkeypatch.setattr(pool, "check_nodes", lambda see: nodes)
        assert make_pool("auto", []).precision == "fp32"
        with pytest.raises(MachineError, match="without bf16, and features of two precisions cannot be mixed"):
            make_pool("bf16", [])
        assert (make_pool("fp32", []).workers, make_pool("fp32", []).threads) == (2, 1)


def test_what_does_not_go_with_a_runner_is_refused(runner: str, tmp_path: Path, photos: Path, shell: Shell) -> None:
    model, ray = tmp_path / "model", ("--runner", "ray")
    for wrong, said in (
        (("fit", photos, "--store", "x"), "--store goes with --runner"),
        (("fit", photos, *ray, "--no-cache"), "--no-cache does not go with --runner"),
        (("fit", photos, *ray, "--engine", "torch"), "on the fast engine"),
        (("fit", photos, *ray, "--backbone", "auto"), "one of 'headstart backbones'. Received: 'auto'"),
        (("fit", photos, "--runner", "spark", "--out", model), "--runner: expected ray"),
        (("predict", model, photos, *ray), "--runner goes with a table"),
        (("predict", model, photos, *ray, "--out", "t.csv", "--urls"), "--urls does not go with --runner"),
        (("predict", model, photos, "--store", "x"), "--store goes with --runner"),
    ):
        refused = shell(*wrong)
        assert refused.code == 2
        assert said in refused.err
    missing = shell("fit", tmp_path / "nothing", *ray, "--out", model)
    assert (missing.code, "No such" in missing.err) == (2, True)
    with cluster(runner), pytest.raises(MachineError, match=r"does not see '.*/nothing'.*: store"):
        check_nodes([str(tmp_path / "nothing")])
    assert not model.exists()


PEAK = """
import resource, sys
if __name__ == "__main__":
    from headstart.scale.fit import fit_on_ray
    fit_on_ray(sys.argv[1], sys.argv[2] + "/model", store=sys.argv[2] + "/store", pixels=32, diagnose=False)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_the_memory_of_the_caller_does_not_grow_with_the_images(tmp_path: Path) -> None:
    script, peaks = tmp_path / "peak.py", list[int]()
    script.write_text(PEAK)
    for count in (5000, 50_000):
        data = tmp_path / f"{count}.tar"
        rng = np.random.default_rng(0)
        with tarfile.open(data, "w") as tar:
            for number in range(count):
                content = packed(rng.integers(0, 256, (8, 8, 3), np.uint8))
                member = tarfile.TarInfo(f"{'ab'[number % 2]}/{number}.png")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        command = [sys.executable, str(script), str(data), str(tmp_path / f"of {count}")]
        peaks.append(int(subprocess.run(command, check=True, capture_output=True).stdout.split()[-1]))
    assert peaks[1] < 1.1 * peaks[0]
