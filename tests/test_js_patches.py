"""Patches (SPEC.md section 7.4) as the reader in JavaScript reads them: what NumPy has of the result."""

from __future__ import annotations

import subprocess
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from javascript import JS, Reader, assert_same, node
from javascript import reader as reader

import ckptfmt

Scratch = Callable[[], AbstractContextManager[str]]
RANDOM = np.random.default_rng(1)
MORE = 600  # elements of tensors that are worth differences


def nudged(array: Any) -> Any:
    """The same array with one bit of some elements changed."""
    found = array.copy()
    found.reshape(-1).view(np.uint8)[:: 5 * array.itemsize] ^= 1
    return found


BASE: dict[str, Any] = {
    "w": RANDOM.standard_normal((30, MORE)).astype(ml_dtypes.bfloat16),
    "kept": RANDOM.standard_normal((7, MORE)),
    "flags": np.arange(9 * MORE) % 3 == 0,
    "q": (np.arange(9 * MORE) % 16 - 8).astype(ml_dtypes.int4).reshape(9, MORE),
    "complex": RANDOM.standard_normal(MORE) + 1j,
}
RESULT = {
    "renamed": BASE["kept"],
    **{name: nudged(BASE[name]) for name in ("w", "q", "complex")},
    "flags": BASE["flags"] ^ (np.arange(9 * MORE) == 7),
    "new": np.arange(5, dtype=np.int8),
    "empty": np.zeros((0, 3)),
}


def made(folder: Path, **options: Any) -> tuple[Path, Path]:
    """A base, and a patch of it."""
    ckptfmt.save(folder / "base.ckpt", {**BASE, "empty": np.zeros((0, 3))}, durable=False, **options)
    ckptfmt.save(folder / "result.ckpt", RESULT, metadata={"loss": 1.5}, durable=False)
    report = ckptfmt.patch(folder / "base.ckpt", folder / "result.ckpt", folder / "p.ckpt", durable=False)
    assert (report.xor.tensors, report.whole.tensors) == (4, 1)
    return folder / "base.ckpt", folder / "p.ckpt"


@pytest.mark.parametrize(
    "options",
    [{}, {"layout": "packed", "compression": "zstd"}, {"layout": "loose"}, {"paged": True, "digest": "sha256"}],
)
def test_tensors_are_those_of_the_result(reader: Reader, tmp_path: Path, options: dict[str, Any]) -> None:
    base, patch = made(tmp_path, **options)
    for name, array in RESULT.items():
        assert_same(reader.read(patch, name, base=str(base)), array)
    slices = [{"start": 3, "step": 4}, {"start": -50, "step": 7}]
    assert_same(reader.read(patch, "w", slices, base=str(base)), RESULT["w"][3::4, -50::7])
    assert_same(reader.read(patch, "q", [2, {"start": 1, "stop": 8}], base=str(base)), RESULT["q"][2, 1:8])
    assert reader.verify(patch, base=str(base)) == []


def test_what_the_base_is_among(reader: Reader, tmp_path: Path) -> None:
    base, patch = made(tmp_path)
    several = [str(tmp_path / "result.ckpt"), str(tmp_path / "nothing.ckpt"), str(base)]
    assert_same(reader.read(patch, "w", base=several), RESULT["w"])
    wrong = reader.read(patch, "new", base=str(tmp_path / "result.ckpt"))
    assert wrong["code"] == "wrong-base"
    for path in (base, tmp_path / "result.ckpt"):
        with ckptfmt.open(path) as checkpoint:
            assert checkpoint.manifest_sha256 in wrong["message"]
    assert reader.read(patch, "new", base=several[:2])["code"] == "not-found", "which may have been the base"
    assert_same(reader.read(base, "w", base=str(patch)), BASE["w"])  # what is no patch takes none


def test_without_a_base(reader: Reader, tmp_path: Path) -> None:
    base, patch = made(tmp_path)
    assert_same(reader.read(patch, "new"), RESULT["new"])
    for name in ("w", "renamed", "empty"):
        missing = reader.read(patch, name)
        assert (missing["code"], missing["place"]) == ("missing-base", {"tensor": name})
        assert "ckptfmt apply" in missing["message"]
        with ckptfmt.open(base) as checkpoint:
            assert checkpoint.manifest_sha256 in missing["message"]
        assert reader.verify(patch, name)["code"] == "missing-base"
    assert reader.verify(patch) == []
    assert reader.verify(patch, "new") == []


def damage(path: Path, member: str) -> None:
    """Flip a bit of a chunk."""
    with zipfile.ZipFile(path) as archive:
        [name] = [name for name in archive.namelist() if name.startswith(member)]
        stored = archive.read(name)
    at = path.read_bytes().index(stored) + 8
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 4]))


def test_both_sides_are_verified(reader: Reader, tmp_path: Path) -> None:
    base, patch = made(tmp_path)
    damage(base, "tensors/kept/c/")
    damage(patch, "xor/w/c/")
    of_base = reader.read(patch, "renamed", base=str(base))
    assert of_base["code"] == "block-digest"
    assert of_base["place"]["tensor"] == "kept"
    assert of_base["place"]["base"] == str(base)
    assert str(base) in of_base["message"]
    own = reader.read(patch, "w", base=str(base))
    assert (own["code"], own["place"]["tensor"], own["place"].get("base")) == ("block-digest", "w", None)
    for name in ("flags", "q", "complex", "new"):
        assert_same(reader.read(patch, name, base=str(base)), RESULT[name])
    found = reader.verify(patch, base=str(base))
    assert [(one["code"], one["tensor"], one.get("base")) for one in found] == [
        ("block-digest", "w", None),
        ("block-digest", "kept", str(base)),
    ]
    assert [one["tensor"] for one in reader.verify(patch)] == ["w"]
    assert [one["tensor"] for one in reader.verify(patch, "renamed", base=str(base))] == ["kept"]
    assert reader.verify(patch, "q", base=str(base)) == []


def test_a_chain(reader: Reader, tmp_path: Path) -> None:
    steps = [{"w": RANDOM.standard_normal(MORE)}]
    ckptfmt.save(tmp_path / "0.ckpt", steps[0], durable=False)
    for number in range(1, 10):
        steps.append({"w": nudged(steps[-1]["w"])} if number % 3 else steps[-1])
        ckptfmt.save(tmp_path / "next.ckpt", steps[-1], durable=False, overwrite=True)
        place, bases = tmp_path / f"{number - 1}.ckpt", sorted(tmp_path.glob("?.ckpt"))
        with ckptfmt.open(place, base=bases, limits=ckptfmt.Limits(patches=9)) as before:
            ckptfmt.patch(before, tmp_path / "next.ckpt", tmp_path / f"{number}.ckpt", durable=False)
    among = [str(tmp_path / f"{number}.ckpt") for number in range(9)]
    assert_same(reader.read(tmp_path / "8.ckpt", "w", base=among), steps[8]["w"])
    assert reader.read(tmp_path / "9.ckpt", "w", base=among)["code"] == "limit-exceeded"
    assert_same(reader.read(tmp_path / "9.ckpt", "w", base=among, maxPatches=9), steps[9]["w"])
    assert reader.read(tmp_path / "8.ckpt", "w", base=among[1:])["code"] == "wrong-base"
    assert reader.verify(tmp_path / "8.ckpt", "w", base=among) == []


@given(data=st.data())
def test_any_bits_of_any_tensor(reader: Reader, scratch: Scratch, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(["int8", "uint16", "float32", "int64", "bfloat16", "float8_e5m2"]))
    size = np.dtype(getattr(ml_dtypes, dtype, dtype)).itemsize
    shape = tuple(data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=3)))
    count = int(np.prod(shape)) * size
    bits = RANDOM.integers(0, 256, count, np.uint8)
    flips = np.zeros(count, np.uint8)
    for at in data.draw(st.lists(st.integers(0, count - 1), max_size=5)):
        flips[at] = data.draw(st.integers(1, 255))
    base, new = (array.view(getattr(ml_dtypes, dtype, dtype)).reshape(shape) for array in (bits, bits ^ flips))
    with scratch() as folder:
        paths = [Path(folder) / name for name in ("base.ckpt", "new.ckpt", "p.ckpt")]
        ckptfmt.save(paths[0], {"x": base}, durable=False)
        ckptfmt.save(paths[1], {"x": new}, durable=False)
        ckptfmt.patch(*paths, durable=False)
        start = data.draw(st.integers(0, shape[0]))
        assert_same(reader.read(paths[2], "x", base=str(paths[0])), new)
        assert_same(reader.read(paths[2], "x", [{"start": start, "step": 2}], base=str(paths[0])), new[start::2])


OPEN_BASE = """
import { open } from PACKAGE;
const given = await open("base.ckpt");
const patch = await open("p.ckpt", { base: given });
const [w, kept] = [await patch.tensor("w"), await patch.tensor("renamed")];
console.log(patch.patch.base === given.sha256, patch.base === given, given.patch, given.base);
console.log(w.form, w.source.label, w.chunkCount);
console.log(kept.form, kept.source === await given.tensor("kept"), kept.chunkCount);
await patch.close();
console.log((await (await given.tensor("w")).readRaw()).data.length > 0); // which is not closed with it
const alone = await open("p.ckpt");
console.log(alone.base, (await alone.tensor("w")).source, alone.requires, alone.metadata.get("loss"));
const chained = await open("p.ckpt", { base: [given, alone], maxPatches: 0 }).catch((error) => error.code);
console.log(chained);
"""


def test_a_base_that_is_open(tmp_path: Path) -> None:
    made(tmp_path)
    program = OPEN_BASE.replace("PACKAGE", repr((JS / "dist" / "index.js").as_uri()))
    words = [node(), "--input-type=module", "--eval", program]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "true true null null",
        "xor w 1",
        "same true 0",
        "true",
        "null undefined [ 'patch' ] 1.5",
        "limit-exceeded",
    ], done.stderr
