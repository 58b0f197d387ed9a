"""`ckptfmt get`: tensors, slices, plain values and subtrees, printed, as JSON and as .npy files."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner, Result
from damage import flipped, small_chunks, zones
from programs import assert_safe, on_terminal

import ckptfmt
from ckptfmt.cli.app import cli
from ckptfmt.format.dtypes import DTYPES

ODD = {"-strange": 1, "-1": 2, "--json": 3, "": 4, "a/b": 5, "[x]": 6, " ": 7, "'q'": 8, "~": 9, "é\n": 10}


def get(*args: object) -> Result:
    return CliRunner().invoke(cli, ["get", *map(str, args)])


def printed(*args: object) -> str:
    result = get(*args)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout.removesuffix("\n")


def document(*args: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(printed(*args, "--json"))
    return found


def refused(*args: object) -> str:
    """The one line of a call that cannot be carried out."""
    result = get(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert_safe(result)
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture
def tensors() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "small": rng.normal(size=(3, 5)).astype(np.float32),
        "large": rng.normal(size=(300, 7, 40)),
        "compressed": rng.integers(0, 99, (4000, 9)),
        "many axes": rng.normal(size=(8, 8, 8, 8, 8)).astype(np.float16),
        "bfloat16": np.arange(4000).astype(ml_dtypes.bfloat16),
        "bool": np.array([True, False]),
        "scalar": np.array(2.5),
        "empty": np.zeros((0, 4), np.int8),
        "when": np.array(["2020-01-01", "NaT"], "M8[D]"),
    }


@pytest.fixture
def model(tmp_path: Path, tensors: dict[str, Any]) -> Path:
    path = tmp_path / "model.ckpt"
    plain = {"lr": 0.1, "betas": (0.9, 0.99), "text": "a\nb", "none": None, "long": list(range(500)), "odd": ODD}
    tree = {"t": tensors, "alias": tensors["small"], "p": plain, "i": {0: "int", "0": "str"}}
    ckptfmt.save(path, tree, compression={"t/compressed": "zstd"}, durable=False)
    return path


# ---- printing


def test_arrays_are_printed_as_numpy_prints_them(model: Path, tensors: dict[str, Any]) -> None:
    for name, array in tensors.items():
        expected = str(array[()]) if array.ndim == 0 else np.array2string(array, 100)
        assert printed(model, f"t/{name}") == expected


def test_printing_a_large_tensor_reads_its_ends_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    array = np.arange(200_000.0).reshape(1000, 200)
    with small_chunks():
        ckptfmt.save(path, {"w": array}, durable=False)
    (zone,) = [zone for zone in zones(path) if zone.where == "block"]
    with flipped(path, (zone.start + zone.stop) // 2, 0):
        assert printed(path, "w") == np.array2string(array, 100)
        assert printed(path, "w", "-1, :2") == "[199800. 199801.]"
        for options in (["--json"], ["-o", tmp_path / "w.npy"], ["500"]):
            result = get(path, "w", *options)
            assert result.exit_code == 1
            assert "[block-digest]" in result.stderr
        assert json.loads(get(path, "w", "--json").stdout)["error"]["tensor"] == "w"
        assert not (tmp_path / "w.npy").exists()


INDICES = ["0", "-1", "1:3", "::2", "::-1", "...", "-1,::2", "1:3,-2:,::20", "...,0", "5:2", "-3:,...,:1", "[0, 0, 0]"]


@pytest.mark.parametrize("index", INDICES)
def test_a_slice_is_that_of_numpy(model: Path, tensors: dict[str, Any], index: str) -> None:
    array = tensors["large"][eval(f"np.s_[{index.strip('[]')}]")]
    assert document(model, "t/large", index)["values"] == array.tolist()
    assert printed(model, "t/large", index) == (str(array) if np.ndim(array) == 0 else np.array2string(array, 100))


@pytest.mark.parametrize("index", ["3", "0,5", "a", "1.5", "0,0,0", "None", "...,...", "::0", "", "--", "-"])
def test_bad_indices_are_one_line(model: Path, index: str) -> None:
    assert refused(model, "--", "t/small", index).endswith("[bad-index]\n")
    assert json.loads(get(model, "--json", "--", "t/small", index).stdout)["error"]["path"] == str(model)


def test_a_terminal_is_told_what_is_printed(model: Path) -> None:
    _, shown, _ = on_terminal("get", model, "t/small", "1:,0", NO_COLOR="1", COLUMNS="40")
    assert "t/small: float32 [3, 5], of which [2]" in shown
    _, shown, _ = on_terminal("get", model, "t/large", COLUMNS="40")
    assert max(map(len, shown.splitlines()[1:])) <= 40


# ---- paths


@pytest.mark.parametrize("key", sorted(ODD))
def test_odd_keys_are_found(tmp_path: Path, key: str) -> None:
    path = tmp_path / "x.ckpt"
    ckptfmt.save(path, ODD, durable=False)
    if key:  # the text "" is the root, too
        assert printed("--", path, key) == str(ODD[key])
    assert printed("--", path, json.dumps([key])) == str(ODD[key])
    if key == "-1":
        assert printed(path, key) == "2"
        assert printed(path, key, "--json").startswith("{")


def test_ambiguous_paths_name_the_way_out(model: Path) -> None:
    line = refused(model, "i/0")
    assert line.endswith("[ambiguous-path]\n")
    ways = re.findall(r"'(\[.*?\])'", line)
    assert [printed(model, way) for way in ways] == ["'int'", "'str'"]


@pytest.mark.parametrize("path", ["nope", "t/small/0", "p/lr/x", "T", "t/", "/t", '["nope"]', "[red]"])
def test_paths_that_do_not_exist(model: Path, path: str) -> None:
    line = refused(model, path)
    assert repr(path) in line
    assert line.endswith("[no-such-path]\n")


# ---- plain values and subtrees


def test_plain_values_are_python_literals(model: Path) -> None:
    assert printed(model, "p/lr") == "0.1"
    assert printed(model, "p/betas") == "(0.9, 0.99)"
    assert printed(model, "p/betas/1") == "0.99"
    assert printed(model, "p/text") == r"'a\nb'"
    assert printed(model, "p/none") == "None"
    assert printed(model, "p/long") == repr(list(range(500)))


def test_subtrees_are_trees(model: Path) -> None:
    lines = printed(model, "p").splitlines()
    assert lines[:4] == ["p", "├── lr            0.1", "├── betas         (0.9, 0.99)", r"├── text          'a\nb'"]
    assert lines[5].endswith("498, 499]")
    whole = printed(model, "").splitlines()
    assert whole[0] == "(root)"
    assert any(line.endswith("raw  alias of t/small") for line in whole)


def test_values_as_json(model: Path) -> None:
    assert document(model, "p/betas") == {
        "path": str(model),
        "key": "p/betas",
        "value": {"$tuple": [0.9, 0.99]},
        "tensors": [],
        "tags": [],
    }
    found = document(model, "")
    assert found["value"]["alias"] == found["value"]["t"]["small"] == {"$tensor": 0}
    assert found["value"]["t"]["when"]["view"] == "datetime64[D]"
    assert found["value"]["i"] == {"$dict": [[0, "int"], ["0", "str"]]}
    assert [row["path"] for row in found["tensors"]][:2] == [["t", "small"], ["t", "large"]]


@pytest.mark.parametrize("options", [["0"], ["-o", "x.npy"], ["--as", "float32"]])
def test_options_of_tensors_are_refused_for_values(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "is for tensors; 'p/lr' is of type float" in refused(model, "p/lr", *options)
    assert not Path("x.npy").exists()


def test_tensors_as_json(model: Path) -> None:
    assert document(model, "t/when") == {
        "path": str(model),
        "key": "t/when",
        "dtype": "datetime64[D]",
        "shape": [2],
        "values": ["2020-01-01", "NaT"],
        "output": None,
    }
    assert document(model, "t/scalar")["values"] == 2.5
    assert document(model, "t/empty")["shape"] == [0, 4]
    assert document(model, "t/bool")["values"] == [True, False]
    assert document(model, "alias", "0,:2", "--as", "bits")["dtype"] == "uint32"


# ---- files


def test_npy_files_hold_the_same_array(model: Path, tmp_path: Path, tensors: dict[str, Any]) -> None:
    for number, (name, array) in enumerate(tensors.items()):
        if name == "bfloat16":
            continue
        file = tmp_path / f"{number}.npy"
        assert printed(model, f"t/{name}", "-o", file) == ""
        loaded = np.load(file, allow_pickle=False)
        assert (loaded.dtype, loaded.shape) == (array.dtype, array.shape)
        assert loaded.tobytes() == array.tobytes()
    file = tmp_path / "part.npy"
    found = document(model, "t/large", "1:3,::-1", "-o", file)
    assert (found["values"], found["output"], found["shape"]) == (None, str(file), [2, 7, 40])
    np.testing.assert_array_equal(np.load(file), tensors["large"][1:3, ::-1])


@pytest.mark.parametrize("name", sorted(name for name, row in DTYPES.items() if not row.is_core))
def test_what_npy_cannot_carry_is_refused_with_ways_that_work(tmp_path: Path, name: str) -> None:
    path, file = tmp_path / "x.ckpt", tmp_path / "x.npy"
    array = np.array([1, 0, 1]).astype(DTYPES[name].numpy)
    ckptfmt.save(path, {"w": array}, durable=False)
    line = refused(path, "w", "-o", file)
    assert name in line
    ways = re.findall(r"--as (\w+)", line)
    assert len(ways) == 2
    assert not file.exists()
    for way in ways:
        printed(path, "w", "-o", file, "--overwrite", "--as", way)
        loaded = np.load(file, allow_pickle=False)
        if way == "bits":
            assert loaded.tobytes() == array.tobytes()
            assert loaded.dtype.kind == "u"
        else:
            np.testing.assert_array_equal(loaded, array.astype(way))
            assert loaded.astype(array.dtype).tobytes() == array.tobytes()


@pytest.mark.parametrize(
    ("key", "wanted"), [("t/small", "int32"), ("t/large", "bool"), ("t/when", "int64"), ("t/bfloat16", "int16")]
)
def test_conversions_to_a_narrower_kind_are_refused(model: Path, key: str, wanted: str) -> None:
    assert f"does not convert to {wanted}" in refused(model, key, "--as", wanted)


def test_conversions(model: Path, tensors: dict[str, Any]) -> None:
    assert printed(model, "t/bool", "--as", "int8") == "[1 0]"
    assert printed(model, "t/small", "0,0", "--as", "float64") == str(np.float64(tensors["small"][0, 0]))
    assert document(model, "t/small", "--as", "complex64")["dtype"] == "complex64"
    assert document(model, "t/large", "0,0,:1", "--as", "bits")["values"] == [
        {"$int": str(int(tensors["large"][0, 0, :1].view(np.uint64)[0]))}
    ]


def test_what_has_no_integer_of_its_width_has_no_bits(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "x.ckpt", np.zeros(2, np.complex128), durable=False)
    assert "no unsigned integer is as wide as complex128" in refused(tmp_path / "x.ckpt", "", "--as", "bits")


def test_an_existing_file_stays_unless_forced(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.npy"
    file.write_text("precious")
    assert "--overwrite" in refused(model, "t/small", "-o", file)
    assert file.read_text() == "precious"
    printed(model, "t/small", "-o", file, "--overwrite")
    assert np.load(file).shape == (3, 5)
    dangling = tmp_path / "link.npy"
    dangling.symlink_to(tmp_path / "absent.npy")
    assert "--overwrite" in refused(model, "t/small", "-o", dangling)


def test_the_checkpoint_itself_is_never_overwritten(model: Path, tmp_path: Path) -> None:
    before = model.read_bytes()
    os.link(model, tmp_path / "same.ckpt")
    for file in (model, tmp_path / "same.ckpt", f"{model.parent}/./{model.name}"):
        assert "is the checkpoint itself" in refused(model, "t/small", "-o", file, "--overwrite")
    assert model.read_bytes() == before
    folder = tmp_path / "loose.ckpt"
    ckptfmt.save(folder, {"a": np.zeros(2)}, layout="loose", durable=False)
    for name in ("tensors/a/c/0", "COMMIT", "new.npy"):
        assert "is the checkpoint itself" in refused(folder, "a", "-o", folder / name, "--overwrite")
    assert ckptfmt.verify(folder).ok


def test_files_that_cannot_be_written(model: Path, tmp_path: Path) -> None:
    assert refused(model, "t/small", "-o", tmp_path / "absent" / "x.npy").endswith("[not-found]\n")
    assert refused(model, "t/small", "-o", tmp_path, "--overwrite").endswith("[io]\n")
    assert "exists" in refused(model, "t/small", "-o", tmp_path)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_a_full_disk_is_said(model: Path) -> None:
    assert refused(model, "t/large", "-o", "/dev/full", "--overwrite").endswith("[disk-full]\n")
    assert os.path.exists("/dev/full")
