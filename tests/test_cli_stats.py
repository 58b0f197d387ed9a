"""`ckptfmt stats`: what it says of values, beside NumPy, for every dtype and format."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from peers import peer
from rich.text import Text
from safetensors.numpy import save_file

import ckptfmt
from ckptfmt.cli.app import cli
from ckptfmt.format.dtypes import DTYPES

torch = peer("torch")


def run(*args: object) -> Result:
    return CliRunner().invoke(cli, ["stats", *map(str, args)])


def document(*args: object) -> dict[str, Any]:
    result = run(*args, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def save(path: Path, tree: Any, **options: Any) -> Path:
    ckptfmt.save(path, tree, durable=False, **options)
    return path


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_beside_numpy(tmp_path: Path, name: str) -> None:
    dtype = DTYPES[name].numpy
    row = DTYPES[name]
    values = np.array([0, 1, 1, 0, 1]).astype(dtype)
    (found,) = document(save(tmp_path / "x.ckpt", {"t": values}))["tensors"]
    wide = np.abs(values.astype(np.complex128)) if "complex" in row.name else values.astype(np.float64)
    assert (found["name"], found["dtype"], found["shape"], found["elements"]) == ("t", name, [5], 5)
    kept = wide[np.isfinite(wide)]  # float8_e8m0fnu has no zero
    assert (found["min"], found["max"]) == (kept.min(), kept.max())
    assert found["mean"] == pytest.approx(kept.mean())
    assert found["std"] == pytest.approx(kept.std())
    assert (found["zeros"], found["nan"], found["inf"]) == (int((wide == 0).sum()), int(np.isnan(wide).sum()), 0)


def test_nan_and_infinities_are_counted_and_nothing_else(tmp_path: Path) -> None:
    values = np.array([1.0, np.nan, 3.0, np.inf, -np.inf, 0.0, -0.0])
    (found,) = document(save(tmp_path / "x.ckpt", {"t": values}))["tensors"]
    assert {key: found[key] for key in ("min", "max", "mean", "zeros", "nan", "inf")} == {
        "min": 0.0, "max": 3.0, "mean": 1.0, "zeros": 2, "nan": 1, "inf": 2,
    }  # fmt: skip
    (found,) = document(save(tmp_path / "y.ckpt", {"t": np.full(3, np.nan)}))["tensors"]
    assert (found["min"], found["mean"], found["std"], found["nan"]) == (None, None, None, 3)
    (found,) = document(save(tmp_path / "z.ckpt", {"t": np.zeros((0, 3))}))["tensors"]
    assert (found["elements"], found["max"], found["mean"]) == (0, None, None)


def test_integers_are_exact(tmp_path: Path) -> None:
    values = np.array([2**63 + 1, 2**64 - 1, 5], np.uint64)
    (found,) = document(save(tmp_path / "x.ckpt", {"t": values}))["tensors"]
    assert (found["min"], found["max"]) == (5, {"$int": str(2**64 - 1)})


def test_the_table(tmp_path: Path) -> None:
    tied = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    path = save(tmp_path / "x.ckpt", {"a": tied, "b": tied, "c": np.array([np.nan, 1], np.float16), "n": 3})
    lines = run(path).stdout.splitlines()
    assert lines[0] == str(path)
    assert [line.split() for line in lines[1:]] == [
        ["name", "dtype", "shape", "min", "max", "mean", "std", "norm", "bits", "zeros", "nan", "inf", "subnormals",
         "saturated"],
        ["a", "float32", "[2,2]", "1", "4", "2.5", "1.118", "5.4772", "2", "0", "0", "0", "0", "0"],
        ["c", "float16", "[2]", "1", "1", "1", "0", "1", "1", "0", "1", "0", "0", "0"],
        ["2", "tensors,", "6", "elements,", "1", "NaN"],
    ]  # fmt: skip


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """With the columns that matter most."""
    rng = np.random.default_rng(0)
    tree = {"model": {f"layers.{i}.weight": rng.standard_normal((64, 8)).astype(np.float32) for i in range(3)}}
    path = save(tmp_path / "x.ckpt", tree)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(width))
    lines = [Text.from_ansi(line).plain for line in run(path).stdout.splitlines()[1:]]
    assert max(map(len, lines)) <= width
    head = lines[0].split()
    assert {"name", "min", "max", "mean", "std", "nan", "inf"} <= set(head)
    assert ("norm" in head) is (width == 120)


def test_the_most_of_a_column_and_only_what_is_odd(tmp_path: Path) -> None:
    tree = {f"w{i:02}": np.full(2, float(i)) for i in range(14)}
    tree["w03"][0], tree["w05"][1] = np.nan, -np.inf
    path = save(tmp_path / "x.ckpt", tree)
    assert [row["name"] for row in document(path, "--top", "norm", "-n", "2")["tensors"]] == ["w13", "w12"]
    assert len(document(path, "--top", "bits")["tensors"]) == 10
    assert [row["name"] for row in document(path, "--nan")["tensors"]] == ["w03", "w05"]
    assert run(path, "--nan").stdout.splitlines()[-1] == "2 of 14 tensors, 28 elements, 1 NaN, 1 infinite"
    none = run(save(tmp_path / "y.ckpt", {"w": np.ones(2)}), "--nan")
    assert (none.exit_code, none.stdout.splitlines()[1:]) == (0, ["0 of 1 tensor, 2 elements"])
    assert "--top sorts by itself" in run(path, "--top", "norm", "--sort", "std").stderr
    assert "--top: there is no column 'nrom'; did you mean 'norm'?" in run(path, "--top", "nrom").stderr


def test_chosen_and_sorted(tmp_path: Path) -> None:
    path = save(tmp_path / "x.ckpt", {"w": {str(i): np.full(2, float(v)) for i, v in enumerate((3, 1, np.nan, 2))}})
    names = [row["name"] for row in document(path, "--sort", "max")["tensors"]]
    assert names == ["w/'1'", "w/'3'", "w/'0'", "w/'2'"], "and what has none comes last"
    assert [row["name"] for row in document(path, "--sort", "max", "--reverse")["tensors"]][:2] == ["w/'0'", "w/'3'"]
    assert [row["name"] for row in document(path, "-s", "w/'2'")["tensors"]] == ["w/'2'"]
    assert "no tensor matches 'ww/*'; did you mean 'w/*'?" in run(path, "-s", "ww/*").stderr
    assert "--sort: there is no column 'meen'; did you mean 'mean'?" in run(path, "--sort", "meen").stderr


def test_other_formats_and_several_paths(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    save(folder / "epoch_2.ckpt", {"w": np.ones(2)})
    save(folder / "epoch_10.ckpt", {"w": np.ones(10)}, compression="zstd")
    save_file({"w": np.ones(3)}, folder / "x.safetensors")
    torch.save({"w": torch.ones(4, dtype=torch.bfloat16)}, folder / "y.pt")
    found = document(folder)
    assert [one["tensors"][0]["elements"] for one in found["checkpoints"]] == [2, 10, 3, 4]
    assert all(one["tensors"][0]["mean"] == 1.0 for one in found["checkpoints"])
    result = run(folder / "y.pt", folder / "none", "--json")
    assert result.exit_code == 2
    both = json.loads(result.stdout)
    assert both["checkpoints"] == [document(folder / "y.pt")]
    assert [error["code"] for error in both["errors"]] == ["not-found"]


def test_damage_is_no_value(tmp_path: Path) -> None:
    path = save(tmp_path / "x.ckpt", {"w": np.full(1000, math.pi)})
    raw = bytearray(path.read_bytes())
    raw[raw.index(np.float64(math.pi).tobytes()) + 80] ^= 1
    path.write_bytes(raw)
    result = run(path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "[block-digest]" in result.stderr
