"""Pages about checkpoints and runs: what they say is so, of damaged and hostile ones, too. tests/test_report_pages.py
looks at them in a browser."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner
from damage import flipped, zones

import ckptfmt
from ckptfmt.cli.app import cli
from ckptfmt.manager import CheckpointManager, Last, LogTo
from ckptfmt.manager.listing import listed
from ckptfmt.reporting.page import page_of

RNG = np.random.default_rng(0)


def data_of(page: ckptfmt.HtmlReport) -> dict[str, Any]:
    text = page.html.partition('<script type="application/json" id="data">')[2].partition("</script>")[0]
    found = json.loads(text)
    assert isinstance(found, dict)
    return found


def rows(data: dict[str, Any], key: str = "tensors") -> dict[str, dict[str, Any]]:
    return {row[0]: dict(zip(data["columns"], row, strict=True)) for row in data[key]}


def layered(layers: int = 3) -> dict[str, Any]:
    """A tree with a stack of layers, the norms of which grow."""
    found: dict[str, Any] = {"wte": RNG.standard_normal((50, 8)).astype(np.float32)}
    for i in range(layers):
        found[f"layers.{i}.attn.q"] = ((i + 1) * np.ones((4, 4))).astype(ml_dtypes.bfloat16)
        found[f"layers.{i}.mlp.up"] = RNG.standard_normal((16, 8)).astype(np.float32)
    return {"model": found, "step": 7}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    ckptfmt.save(tmp_path / "a.ckpt", layered(), metadata={"loss": 0.5, "note": "x"}, durable=False)
    return tmp_path / "a.ckpt"


# ---- one checkpoint


def test_a_checkpoint(saved: Path) -> None:
    data = data_of(ckptfmt.report(saved))
    tree = ckptfmt.load(saved)["model"]
    found = rows(data)
    assert set(found) == {f"model/{name}" for name in tree}
    assert (data["totals"]["tensors"], data["totals"]["elements"]) == (7, sum(array.size for array in tree.values()))
    for name, array in tree.items():
        row, wide = found[f"model/{name}"], array.astype(np.float64)
        assert (row["shape"], row["bytes"], row["stored"]) == (list(array.shape), array.nbytes, array.nbytes)
        expected = [wide.min(), wide.max(), wide.std(), np.linalg.norm(wide), np.sqrt((wide**2).mean())]
        np.testing.assert_allclose([row[key] for key in ("min", "max", "std", "norm", "rms")], expected, rtol=1e-6)
    assert dict(data["metadata"]) == {"loss": "0.5", "note": "'x'"}
    assert dict(data["facts"])["Manifest"] == f"sha256 {ckptfmt.open(saved).manifest_sha256}"


def test_its_tree_by_bytes(saved: Path) -> None:
    root = data_of(ckptfmt.report(saved))["map"]
    assert root["bytes"] == sum(array.nbytes for array in ckptfmt.load(saved)["model"].values())
    names = {part["name"] for part in root["parts"]}
    assert names == {"wte", "layers"}
    (layers,) = (part for part in root["parts"] if part["name"] == "layers")
    assert [part["name"] for part in layers["parts"]] == ["0", "1", "2"]
    assert {part["name"]: part["dtype"] for part in layers["parts"][0]["parts"]} == {
        "attn.q": "bfloat16",
        "mlp.up": "float32",
    }


def test_its_layers(saved: Path) -> None:
    (stack,) = data_of(ckptfmt.report(saved))["stacks"]
    assert stack["layers"] == [f"model.layers.{i}" for i in range(3)]
    assert stack["kinds"] == ["attn.q", "mlp.up"]
    cells = {(row, column): rest for row, column, *rest in stack["cells"]}
    assert [cells[i, 0][0] for i in range(3)] == [1, 2, 3]  # root mean square
    assert [cells[i, 0][1] for i in range(3)] == [4, 8, 12]  # l2 norm
    assert all(abs(sum(shares) - 1) < 0.01 for shares in stack["distributions"]["layers"])


SHAPES = [(7,), (1 << 20,), (4096, 64), (64, 8192), (3, 100_000), (8, 64, 512), (1 << 18, 1), (1, 1 << 18)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_histograms_are_those_of_the_elements(tmp_path: Path, shape: tuple[int, ...], compression: str | None) -> None:
    """Of a sample, whose rows are from everywhere."""
    tensor = RNG.uniform(-1, 1, shape).astype(np.float32)
    ckptfmt.save(tmp_path / "a.ckpt", {"w": tensor}, durable=False, compression=compression)
    ((low, high, shares),) = data_of(ckptfmt.report(tmp_path / "a.ckpt"))["histograms"]
    assert abs(sum(shares) - 1) < 0.01
    if tensor.size > 1000:
        assert (low, high) == (pytest.approx(-1, abs=0.02), pytest.approx(1, abs=0.02))
        np.testing.assert_allclose(shares, 1 / len(shares), atol=0.015)
    else:
        assert (low, high) == (pytest.approx(tensor.min()), pytest.approx(tensor.max()))


def test_odd_numbers(tmp_path: Path) -> None:
    tree = {"nan": np.full(3, np.nan), "inf": np.array([np.inf, 1.0]), "none": np.empty((0, 4)),
            "big": np.array([2**62 + 1]), "scalar": np.array(2.5), "bool": np.array([True, False]),
            "c": np.array([3 + 4j]), "t": np.array(["2020-01-01"], "M8[s]")}  # fmt: skip
    ckptfmt.save(tmp_path / "a.ckpt", tree, durable=False)
    data = data_of(ckptfmt.report(tmp_path / "a.ckpt"))
    found = rows(data)
    assert (found["nan"]["nan"], found["nan"]["min"], found["inf"]["inf"], found["inf"]["max"]) == (3, None, 1, 1.0)
    assert found["big"]["max"] == str(2**62 + 1)
    assert (found["c"]["max"], found["scalar"]["shape"], found["none"]["elements"]) == (5.0, [], 0)
    assert (data["totals"]["nan"], data["totals"]["inf"]) == (3, 1)


@pytest.mark.parametrize("tree", [{}, {"a": 1}, None], ids=["empty", "plain", "none"])
def test_without_tensors(tmp_path: Path, tree: Any) -> None:
    ckptfmt.save(tmp_path / "a.ckpt", tree, durable=False)
    assert data_of(ckptfmt.report(tmp_path / "a.ckpt"))["totals"]["tensors"] == 0


def test_part_of_it_and_spectra(saved: Path) -> None:
    data = data_of(ckptfmt.report(saved, select="**.mlp.up", spectrum=["**.attn.q", "model/wte"]))
    assert set(rows(data)) == {f"model/layers.{i}.mlp.up" for i in range(3)}
    spectra = {one["name"]: one for one in data["spectra"]}
    assert spectra["model/layers.1.attn.q"]["values"][0] == [1, 8]  # of a matrix of ones, which has one direction
    assert spectra["model/layers.1.attn.q"]["effective"] == pytest.approx(1, abs=1e-3)
    wanted = np.linalg.svd(ckptfmt.load(saved)["model"]["wte"], compute_uv=False)
    np.testing.assert_allclose([value for _, value in spectra["model/wte"]["values"]], wanted, rtol=1e-5)


def test_a_spectrum_that_cannot_be(tmp_path: Path) -> None:
    tree = {"v": np.ones(3), "nan": np.full((2, 2), np.nan), "b": np.ones((2, 2), bool)}
    ckptfmt.save(tmp_path / "a.ckpt", tree, durable=False)
    refused = {
        one["name"]: one["refused"] for one in data_of(ckptfmt.report(tmp_path / "a.ckpt", spectrum="*"))["spectra"]
    }
    assert refused == {"v": "it is no matrix", "nan": "not all of its elements are finite", "b": "it has no numbers"}


def test_another_format(tmp_path: Path) -> None:
    safetensors.numpy.save_file(
        {"a.0.w": np.ones((2, 3)), "a.1.w": np.zeros((2, 3))}, tmp_path / "m.safetensors", {"k": "v"}
    )
    data = data_of(ckptfmt.report(tmp_path / "m.safetensors"))
    assert dict(data["facts"])["Format"].startswith("safetensors")
    assert rows(data)["a.0.w"]["norm"] == pytest.approx(6**0.5)
    assert dict(data["metadata"]) == {"k": "'v'"}


def test_what_is_damaged_is_told_and_the_rest_is_shown(saved: Path) -> None:
    zone = next(zone for zone in zones(saved) if zone.where == "block" and zone.tensor == ("model", "wte"))
    with flipped(zone.file, zone.start, 3):
        data = data_of(ckptfmt.report(saved))
        done = CliRunner().invoke(cli, ["report", str(saved), "-o", str(saved.parent / "r.html")])
    assert (done.exit_code, done.stdout.rpartition(", ")[2]) == (0, "1 damaged tensor told in it\n")
    ((name, code, words),) = data["damage"]
    assert (name, code) == ("model/wte", "block-digest")
    assert "model/wte" in words
    found = rows(data)
    assert (found["model/wte"]["error"], found["model/wte"]["min"]) == ("block-digest", None)
    assert all(row["norm"] for name, row in found.items() if name != "model/wte")


def test_very_many_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a page holds is bounded, and it says how much is left out."""
    monkeypatch.setattr("ckptfmt.reporting.checkpoint_page.ROWS", 100)
    ckptfmt.save(tmp_path / "a.ckpt", {f"w{i}": np.full(i + 1, i, np.int16) for i in range(1000)}, durable=False)
    data = data_of(ckptfmt.report(tmp_path / "a.ckpt"))
    assert (len(data["tensors"]), data["left"], data["totals"]["tensors"]) == (100, 900, 1000)
    assert data["map"]["parts"][-1]["name"] == "800 more"
    assert sum(part["tensors"] for part in data["map"]["parts"]) == 1000


# ---- two checkpoints


def test_two(saved: Path) -> None:
    tree = ckptfmt.load(saved)
    model = tree["model"]
    model["layers.1.attn.q"] = model["layers.1.attn.q"] * ml_dtypes.bfloat16(1.5)
    model["layers.2.mlp.up"] = np.zeros((2, 2), np.float32)
    model["head"], model["new"] = model.pop("wte"), np.ones(4)
    del model["layers.0.mlp.up"]
    ckptfmt.save(saved.parent / "b.ckpt", {**tree, "step": 8}, metadata={"loss": 0.25}, durable=False)
    page = ckptfmt.report(saved, saved.parent / "b.ckpt")
    data = data_of(page)
    assert data["totals"] | {"bytes": 0} == {
        "same": 3,
        "bytes": 0,
        "added": 1,
        "removed": 1,
        "renamed": 1,
        "changed": 3,
    }
    assert [row[:2] for row in data["added"]] == [["model/new", "float64"]]
    assert data["renamed"] == [["model/wte", "model/head"]]
    assert data["movers"] == [["model/layers.1.attn.q", 0.5]]
    changed = rows(data, "changed")
    assert changed["model/layers.1.attn.q"]["change"] == 0.5
    assert (changed["model/layers.2.mlp.up"]["kind"], changed["step"]["after"]) == ("shape", "8")
    (stack,) = data["stacks"]
    cells = {(stack["layers"][row][-1], stack["kinds"][column]): rest for row, column, *rest in stack["cells"]}
    assert cells == {("0", "attn.q"): [0, ""], ("1", "attn.q"): [0.5, ""], ("2", "attn.q"): [0, ""],
                     ("1", "mlp.up"): [0, ""], ("2", "mlp.up"): [None, "shape"]}  # fmt: skip
    assert ["loss", "value", "0.5", "0.25"] in data["metadata"]


def test_two_that_are_equal(saved: Path) -> None:
    assert data_of(ckptfmt.report(saved, saved))["equal"] is True


# ---- a run


def test_a_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    log = LogTo(run / "history.jsonl")
    with CheckpointManager(run, keep=Last(3), durable=False, on_commit=log) as manager:
        for step in range(0, 100, 10):
            manager.save(step, {"w": np.ones(step + 1)}, metrics={"loss": 1 / (step + 1)})
    for step, time in ((70, 1000), (80, 1100), (90, 9000)):
        os.utime(run / f"step-{step:010d}.ckpt", (time, time))
    data = data_of(ckptfmt.report(run))
    found = {row[1]: dict(zip(data["columns"], row, strict=True)) for row in data["steps"]}
    assert list(found) == [70, 80, 90]
    assert found[90]["reasons"] == ["newest", "last 3"]
    (metric,) = data["metrics"]
    assert [step for step, _ in metric["points"]] == list(range(0, 100, 10)), "also of those that were deleted"
    assert metric["kept"] == [70, 80, 90]
    assert [save[0] for save in data["saves"]] == list(range(0, 100, 10))
    (run / "history.jsonl").unlink()
    without = data_of(ckptfmt.report(run))
    assert without["saves"] == []
    assert [step for step, _ in without["metrics"][0]["points"]] == [70, 80, 90]
    assert without["pace"] == [[80, 10.0], [90, 790.0]]
    assert without["pauses"] == []  # of two gaps none is usual


def test_times_are_exact_to_the_second_and_a_shared_byte_counts_once(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with CheckpointManager(run, durable=False, share=True, layout="packed") as manager:
        for step in range(3):
            manager.save(step, {"w": np.arange(100_000), "b": np.full(step + 1, step)})
    data = data_of(ckptfmt.report(run))
    rows = [dict(zip(data["columns"], row, strict=True)) for row in data["steps"]]
    assert rows[2]["time"] == round(listed(str(run))[2].time or 0)
    assert data["totals"]["bytes"] == sum(row["size"] for row in rows)
    assert data["totals"]["onDisk"] < data["totals"]["bytes"] / 2


def test_pauses(tmp_path: Path) -> None:
    with CheckpointManager(tmp_path / "run", durable=False) as manager:
        for step in range(6):
            manager.save(step, {})
    for step, time in enumerate((0, 100, 200, 300, 5300, 5400)):
        os.utime(tmp_path / "run" / f"step-{step:010d}.ckpt", (time, time))
    assert data_of(ckptfmt.report(tmp_path / "run"))["pauses"] == [[3, 4, 5000.0, 100.0]]


def test_a_run_with_damaged_steps(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with CheckpointManager(run, durable=False) as manager:
        for step in (1, 2, 3):
            manager.save(step, {"w": np.ones(4)}, metrics={"loss": float(step)})
    path = run / "step-0000000002.ckpt"
    os.truncate(path, path.stat().st_size - 9)
    data = data_of(ckptfmt.report(run))
    assert (data["totals"]["checkpoints"], data["totals"]["damaged"]) == (2, 1)
    assert [row[:2] for row in data["damage"]] == [[path.name, "bad-record"]]
    assert [step for step, _ in data["metrics"][0]["points"]] == [1, 3]


def test_a_folder_of_others(tmp_path: Path) -> None:
    """Checkpoints without a manager: steps and metrics are what `ls` finds."""
    for epoch in (1, 2):
        ckptfmt.save(
            tmp_path / f"epoch_{epoch}.ckpt", {"w": np.ones(epoch)}, metadata={"loss": 1 / epoch}, durable=False
        )
    data = data_of(ckptfmt.report(tmp_path))
    assert data["metrics"] == [{"name": "loss", "points": [[1, 1.0], [2, 0.5]], "kept": [1, 2]}]


def test_on_a_store() -> None:
    with CheckpointManager("memory://report/run") as manager:
        for step in (1, 2):
            manager.save(step, {"w": np.ones(3)}, metrics={"loss": float(step)})
    assert [row[1] for row in data_of(ckptfmt.report("memory://report/run"))["steps"]] == [1, 2]
    one = data_of(ckptfmt.report("memory://report/run/step-0000000002.ckpt"))
    assert rows(one)["w"]["norm"] == pytest.approx(3**0.5)
    assert refused(lambda: ckptfmt.report("memory://report/none")) == "not-found"


# ---- what cannot be


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(ckptfmt.CkptError) as caught:
        call()
    return caught.value.code


def test_what_is_no_checkpoint(tmp_path: Path, saved: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("hello")
    assert refused(lambda: ckptfmt.report(tmp_path / "empty")) == "not-a-checkpoint"
    assert refused(lambda: ckptfmt.report(tmp_path / "nothing")) == "not-found"
    assert refused(lambda: ckptfmt.report(tmp_path / "text")) == "unknown-format"
    assert refused(lambda: ckptfmt.report(saved, select="nothing")) == "no-match"
    assert refused(lambda: ckptfmt.report(saved, spectrum="nothing")) == "no-match"


def test_options_that_a_page_has_no_use_for(saved: Path) -> None:
    assert refused(lambda: ckptfmt.report(saved, target_format="safetensors")) == "bad-option"
    assert refused(lambda: ckptfmt.report(saved, saved, select="*")) == "bad-option"
    with CheckpointManager(saved.parent / "run", durable=False) as manager:
        manager.save(1, {})
        manager.save(2, {})
    assert refused(lambda: ckptfmt.report(saved.parent / "run", spectrum="*")) == "bad-option"


def test_a_page_that_cannot_be_written(saved: Path) -> None:
    page = ckptfmt.report(saved)
    assert refused(lambda: page.save(saved.parent / "nowhere" / "r.html")) == "not-found"
    (saved.parent / "r.html").mkdir()
    with pytest.raises(ckptfmt.StorageError):
        page.save(saved.parent / "r.html")
    assert sorted(path.name for path in saved.parent.iterdir()) == ["a.ckpt", "r.html"]


# ---- the command, and the page itself


def test_the_command(saved: Path) -> None:
    target = saved.parent / "r.html"
    target.write_text("old")
    done = CliRunner().invoke(cli, ["report", str(saved), "-o", str(target), "--spectrum", "**.attn.q"])
    assert (done.exit_code, done.output.split(":")[0]) == (0, str(target))
    assert target.read_text() == ckptfmt.report(saved, spectrum="**.attn.q").html
    assert CliRunner().invoke(cli, ["report", str(saved), "-o", "-"]).output == ckptfmt.report(saved).html
    done = CliRunner().invoke(cli, ["report", str(saved), "-o", str(target), "--json"])
    size = target.stat().st_size
    head = {"path": str(saved), "other": None, "output": str(target)}
    assert json.loads(done.stdout) == {**head, "kind": "checkpoint", "bytes": size, "damaged": 0}
    assert CliRunner().invoke(cli, ["report", str(saved), "-o", "-", "--json"]).exit_code == 2
    done = CliRunner().invoke(cli, ["report", str(saved), "-o", str(target), "--select", "nothing"])
    assert (done.exit_code, "no-match" in done.output) == (2, True)


def test_a_page_is_small_and_its_own() -> None:
    """Without data: the libraries are most of it."""
    html = page_of("x", {"kind": "run"}).html
    assert len(html.encode()) < 600_000
    assert page_of("x", {"kind": "run"}).html == html


def test_no_name_leaves_its_place(tmp_path: Path) -> None:
    name = "</script><script>alert(1)</script><!--&\u2028\u202e"
    ckptfmt.save(tmp_path / "a.ckpt", {name: np.ones(2)}, metadata={name: name}, durable=False)
    page = ckptfmt.report(tmp_path / "a.ckpt")
    assert "alert(1)</script>" not in page.html
    assert page.html.count("<script") == 4
    assert "\\u202e" in json.dumps(rows(data_of(page)))


def test_in_a_notebook(saved: Path) -> None:
    """In a frame whose scripts have no part in the notebook's."""
    text = ckptfmt.report(saved)._repr_html_()
    assert text.startswith('<iframe sandbox="allow-scripts" title="')
    assert "<script" not in text
