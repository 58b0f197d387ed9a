"""What a conversion writes, read by the library of the target: it equals the source, or a loss names the difference.
Names that a target cannot have are refused before anything is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckptfmt
from ckptfmt.format.names import path_label
from ckptfmt.frameworks.target import flatten
from ckptfmt.reading.blocks import BlockReader
from ckptfmt.testing.equality import assert_same_tree
from ckptfmt.testing.strategies import trees

MATRIX = np.arange(12, dtype=np.float32).reshape(3, 4)

NAMES: dict[str, tuple[str, Any, str]] = {
    "a slash": ("h5", {"g": {"a/b": MATRIX}}, "unsupported-key"),
    "nothing": ("h5", {"": MATRIX}, "unsupported-key"),
    "one dot": ("h5", {"g": {".": {"a": MATRIX}}}, "unsupported-key"),
    "two dots": ("h5", {"..": MATRIX}, "unsupported-key"),
    "a zero byte": ("h5", {"a\0b": MATRIX}, "unsupported-key"),
    "a zero byte in an archive": ("npz", {"a\0b": MATRIX}, "unsupported-key"),
    "a long name": ("npz", {"x" * 288: {"\u00e9" * 4: MATRIX}}, "unsupported-key"),
    "the suffix of members": ("npz", {"w": MATRIX, "w.npy": MATRIX + 1}, "name-collision"),
    "the suffix, nested": ("npz", {"a": {"w": MATRIX, "w.npy": MATRIX + 1}}, "name-collision"),
    "the joiner": ("npz", {"a": {"b": MATRIX}, "a/b": MATRIX}, "name-collision"),
}


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("what", NAMES)
def test_names_that_targets_lack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, verify: bool) -> None:
    suffix, tree, code = NAMES[what]
    if what == "a long name":
        monkeypatch.setattr("ckptfmt.conversion.formats.npz.LONGEST", 300)
    ckptfmt.save(tmp_path / "x.ckpt", tree, durable=False)

    def unread(*_: Any) -> Any:
        raise AssertionError("it was read")

    monkeypatch.setattr(BlockReader, "read", unread)
    with pytest.raises(ckptfmt.InputError) as raised:
        ckptfmt.convert(tmp_path / "x.ckpt", tmp_path / f"y.{suffix}", verify=verify, allow_loss=True)
    assert raised.value.code == code
    assert raised.value.tensor
    assert raised.value.path == str(tmp_path / "x.ckpt")
    assert raised.value.advice == "Rename it, take a part (root=, select=), or choose another target"
    assert not (tmp_path / f"y.{suffix}").exists()


def read_npz(path: str) -> Callable[[Any], Any]:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file}
    return lambda place: arrays["/".join(map(str, place))]


def read_hdf5(path: str) -> Callable[[Any], Any]:
    with h5py.File(path) as file:
        found: dict[str, Any] = {}

        def note(group: Any, above: tuple[str, ...]) -> None:
            for name, item in group.items():  # visititems gives one of several links to a dataset
                if isinstance(item, h5py.Group):
                    note(item, (*above, name))
                else:
                    found["/".join((*above, name))] = item[()]

        note(file, ())
    return lambda place: found["/".join(map(str, place))]


@given(tree=trees(max_leaves=6), target=st.sampled_from(["npz", "h5"]), verify=st.booleans())
def test_any_tree_equals_what_the_library_reads_or_is_named(
    scratch: Callable[[], Any], tree: Any, target: str, verify: bool
) -> None:
    with scratch() as folder:
        ckptfmt.save(f"{folder}/x.ckpt", tree, durable=False)
        path = f"{folder}/y.{target}"
        try:
            report = ckptfmt.convert(f"{folder}/x.ckpt", path, allow_loss=True, durable=False, verify=verify)
        except ckptfmt.CkptError as error:
            assert error.code in ("name-collision", "unsupported-key")
            return
        lost = {loss.path for loss in report.losses if loss.kind != "alias"}
        at = read_npz(path) if target == "npz" else read_hdf5(path)
        for place, leaf in flatten(tree):
            if path_label(place) in lost or (isinstance(leaf, dict) and target == "h5") or not place:
                continue
            assert isinstance(leaf, np.ndarray), (place, leaf)
            assert_same_tree(np.asarray(at(place)), leaf.astype(leaf.dtype.newbyteorder("=")))


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "npz", "msgpack", "h5"])
def test_an_empty_tree_comes_back(tmp_path: Path, suffix: str) -> None:
    ckptfmt.save(tmp_path / "x.ckpt", {})
    assert ckptfmt.convert(tmp_path / "x.ckpt", tmp_path / f"x.{suffix}").losses == ()
    assert ckptfmt.convert(tmp_path / f"x.{suffix}", tmp_path / "y.ckpt").losses == ()
    assert ckptfmt.load(tmp_path / "y.ckpt") == {}
