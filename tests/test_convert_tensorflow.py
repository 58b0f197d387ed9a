"""TensorFlow's checkpoints, which it wrote (`data/make_tensorflow.py`), and such as no program would write."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from conversions import imported
from tensor_bundles import HEADER, block, bundle, entry, graph_of, index_of, masked, message, number, varint

import ckptfmt
from ckptfmt.conversion import open_source
from ckptfmt.conversion.source import is_tensor, nbytes, walk
from ckptfmt.conversion.tensor_bundle import key_of_part
from ckptfmt.format.names import path_text
from ckptfmt.manager.listing import listed
from ckptfmt.testing.equality import assert_same_tree

DATA = Path(__file__).parent / "data" / "tensorflow"
EXPECTED: dict[str, dict[str, Any]] = json.loads((DATA / "expected.json").read_text())
QUANTISED = ["int8", "int16", "int32", "uint8", "uint16"]


def as_tensorflow_reads(dtype: str, shape: list[int], value: Any) -> Any:
    if dtype == "string":
        return np.array([text.encode("latin-1") for text in value], object).reshape(shape).tolist()
    found = np.dtype(getattr(ml_dtypes, dtype, dtype))
    return np.frombuffer(bytes.fromhex(value), found).reshape(shape)


def as_bytes(leaf: Any) -> Any:
    if isinstance(leaf, list):
        return [as_bytes(item) for item in leaf]
    return leaf.encode() if isinstance(leaf, str) else leaf


@pytest.mark.parametrize("index", EXPECTED)
def test_every_tensor_is_what_tensorflow_reads(index: str) -> None:
    with open_source(str(DATA / index)) as source:
        assert source.format == "tensorflow"
        keys = (source.metadata or {}).get("tensorflow.keys", {name: name for name in source.tree})
        leaves = {path_text(path): leaf for path, leaf in walk(source.tree)}
        assert set(keys.values()) == EXPECTED[index].keys()
        for place, key in keys.items():
            leaf = leaves[place]
            found = np.asarray(leaf[()]) if is_tensor(leaf) else as_bytes(leaf)
            assert_same_tree(found, as_tensorflow_reads(*EXPECTED[index][key]))
            if is_tensor(leaf) and leaf.shape:
                assert_same_tree(leaf[(slice(0, 1),)], found[:1])


def test_quantised_integers() -> None:
    with open_source(str(DATA / "dtypes")) as source:
        losses = {loss.path: loss.message for loss in source.losses if loss.kind == "dtype"}
    assert losses == {f"q{name}": f"q{name} becomes {name} with the same bits" for name in QUANTISED}


def test_names_of_objects() -> None:
    with open_source(str(DATA / "objects")) as source:
        assert Path(source.place.path).name == "ckpt-2.index"
        assert source.place.passed_over == ("ckpt-1.index",)
        tree, metadata, losses = source.tree, source.metadata, source.losses
        assert tree["step"][()] == 8
    assert {key: set(item) for key, item in tree.items() if isinstance(item, dict)} == {
        "model": {"weights", "unnamed", "by_key", "text", "table"},
        "optimizer": {"slots", "beta1_power", "beta2_power"},
    }
    model, slots = tree["model"], tree["optimizer"]["slots"]
    assert set(model["weights"]) == {"first", "block"}
    assert set(model["unnamed"]) == {"0", "1"}  # both are called Variable
    assert set(model["by_key"]) == {"x/y", "a.b"}
    assert set(model["table"]) == {"table-keys", "table-values"}
    assert model["text"] == ["ü", b"\xff\0", ""]
    assert set(slots) == {"m", "v"}
    assert set(slots["m"]["model"]["weights"]) == {"first", "block"}
    keys, names = metadata["tensorflow.keys"], metadata["tensorflow.names"]
    assert keys["model/weights/block/second"] == "model/weights/1/.ATTRIBUTES/VARIABLE_VALUE"
    slot = "model/weights/0/.OPTIMIZER_SLOT/optimizer/m/.ATTRIBUTES/VARIABLE_VALUE"
    assert keys["optimizer/slots/m/model/weights/first"] == slot
    assert names["model/by_key/a.b"] == "fourth"
    assert [tuple(loss)[:2] for loss in losses] == [("value", "iterator/ITERATOR_STATE")]


def test_a_model_of_keras_is_found_by_the_names_of_its_variables() -> None:
    with open_source(str(DATA / "keras_model")) as source:
        weights = source.tree["optimizer"]["_trainable_variables"]["small"]
    assert {layer: set(found) for layer, found in weights.items()} == {
        "hidden": {"kernel", "bias"},
        "out": {"kernel", "bias"},
    }


def test_flat_names_and_parts(tmp_path: Path) -> None:
    shutil.copytree(DATA / "saver", tmp_path / "saver")
    tree, metadata = imported(tmp_path / "saver")
    assert list(tree) == ["dense/kernel", "dense/kernel/Adam", "embedding", "global_step"]
    assert tree["embedding"].shape == (7, 2)
    assert metadata is None
    shutil.copytree(DATA / "sharded", tmp_path / "sharded")
    tree, _ = imported(tmp_path / "sharded")
    assert_same_tree(tree["long"], np.arange(200, dtype=np.int16))
    with open_source(str(tmp_path / "sharded")) as source:
        assert_same_tree(source.tree["long"][(slice(65, 75),)], tree["long"][65:75])


WAYS = ["objects/ckpt-1", "objects/ckpt-1.index", "objects/ckpt-1.data-00000-of-00001", "sharded/model", "saved_model"]


@pytest.mark.parametrize("path", [*WAYS, "sharded/model.data-00001-of-00002", "saved_model/variables"])
@pytest.mark.parametrize("name", [None, "tensorflow"])
def test_ways_to_name_a_checkpoint(path: str, name: str | None) -> None:
    with open_source(str(DATA / path), name) as source:
        assert source.format == "tensorflow"
        if "ckpt-1" in path:
            assert source.tree["step"][()] == 7


def test_the_latest_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(DATA / "objects", folder)
    said = folder / "checkpoint"
    said.write_text('model_checkpoint_path: "/elsewhere/moved/ckpt-1"\n')  # as with a Saver of absolute paths
    assert imported(folder, allow_loss="value")[0]["step"] == 7
    said.write_text('model_checkpoint_path: "ckpt-3"\n')
    with pytest.raises(ckptfmt.CkptError, match="'checkpoint' names ckpt-3") as raised:
        open_source(str(folder))
    assert raised.value.code == "bad-source"
    for text in ("", "something else"):
        said.write_text(text)
        with pytest.raises(ckptfmt.CkptError) as raised:
            open_source(str(folder))
        assert raised.value.code == "ambiguous-source"


def test_a_saved_model_without_variables(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"")
    assert refused(tmp_path).code == "unsupported-source"


def test_a_folder_of_many(tmp_path: Path) -> None:
    shutil.copytree(DATA / "objects", tmp_path / "run")
    shutil.copytree(DATA / "sharded", tmp_path / "run", dirs_exist_ok=True)
    found = ckptfmt.convert_each(tmp_path / "run", tmp_path / "made", allow_loss="value", durable=False)
    assert [outcome.error for outcome in found] == [None] * 3
    assert {path.name for path in (tmp_path / "made").iterdir()} == {"ckpt-1.ckpt", "ckpt-2.ckpt", "model.ckpt"}
    rows = {row.name: row for row in listed(str(tmp_path / "run"))}
    assert {name: row.format for name, row in rows.items()} == dict.fromkeys(rows, "tensorflow")
    files = (tmp_path / "run").glob("model.*")
    assert rows["model.index"].size == sum(path.stat().st_size for path in files)
    assert len(rows) == 3


# ---- damage and malice


def refused(path: Path, *codes: str) -> ckptfmt.CkptError:
    """The error that opening a source and reading all its tensors ends with."""
    with pytest.raises(ckptfmt.CkptError) as raised:
        read_all(path)
    assert raised.value.code in (codes or ("bad-source", "unsupported-source"))
    return raised.value


def read_all(path: Path) -> None:
    with open_source(str(path)) as source:
        for _, leaf in walk(source.tree):
            if is_tensor(leaf) and nbytes(leaf) < 1 << 20:
                leaf[()]


def copied(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name
    shutil.copytree(DATA / name, folder)
    return next(folder.rglob("*.index"))


@pytest.mark.parametrize("name", ["sharded", "dtypes", "keras_model"])
def test_every_byte_is_checked(tmp_path: Path, name: str) -> None:
    index = copied(tmp_path, name)
    for path in sorted(index.parent.iterdir()):
        whole = path.read_bytes()
        for at in range(0, len(whole), max(1, len(whole) // 100)):
            if path == index and len(whole) - 44 < at < len(whole) - 8:
                continue  # what fills up the footer
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
            refused(index, "bad-source", "unsupported-source", "unknown-format")
        path.write_bytes(whole)


@pytest.mark.parametrize("name", ["sharded", "dtypes"])
def test_what_is_cut_off(tmp_path: Path, name: str) -> None:
    index = copied(tmp_path, name)
    for path in sorted(index.parent.iterdir()):
        whole = path.read_bytes()
        for size in range(0, len(whole), 17):
            path.write_bytes(whole[:size])
            error = refused(index, "bad-source", "unknown-format")
            assert path == index or (error.code == "bad-source" and "fetch it again" in error.advice)
        path.unlink()
        assert refused(index, "bad-source", "not-found").path
        path.write_bytes(whole)


def test_what_is_written_here_is_read(tmp_path: Path) -> None:
    path = bundle(tmp_path, b"abcdef", (b"a", entry(b"abcd")), (b"b", entry(b"ef", offset=4)))
    assert_same_tree(imported(path)[0], {"a": np.frombuffer(b"abcd", np.uint8), "b": np.frombuffer(b"ef", np.uint8)})


DATA_OF = b"abcdefgh"
PART = key_of_part(b"a", (0,), (4,))
EXTENT = message(1, number(1, 0) + number(2, 4))
HOSTILE: dict[str, tuple[str, list[tuple[bytes, bytes]]]] = {
    "beyond the file": ("bad-source", [(b"a", entry(DATA_OF, offset=1))]),
    "far beyond the file": ("bad-source", [(b"a", entry(DATA_OF, offset=1 << 62))]),
    "before the file": ("bad-source", [(b"a", entry(DATA_OF, offset=-1))]),
    "another size": ("bad-source", [(b"a", entry(DATA_OF, shape=(9,)))]),
    "a negative side": ("bad-source", [(b"a", entry(DATA_OF, shape=(-1,)))]),
    "sides whose product wraps": ("bad-source", [(b"a", entry(DATA_OF, shape=(1 << 62, 4)))]),
    "too many axes": ("bad-source", [(b"a", entry(DATA_OF, shape=(1,) * 65 + (8,)))]),
    "no rank": ("bad-source", [(b"a", number(1, 4) + message(2, number(3, 1)))]),
    "no such data type": ("unsupported-source", [(b"a", entry(DATA_OF, dtype=99))]),
    "no such file": ("bad-source", [(b"a", entry(DATA_OF, shard=1))]),
    "a file of 2^31": ("bad-source", [(b"a", entry(DATA_OF, shard=(1 << 31) - 1))]),
    "the same bytes twice": ("bad-source", [(b"a", entry(DATA_OF)), (b"b", entry(DATA_OF[4:], offset=4))]),
    "the same key twice": ("bad-source", [(b"a", entry(DATA_OF[:4])), (b"a", entry(DATA_OF[4:], offset=4))]),
    "keys in another order": ("bad-source", [(b"b", entry(DATA_OF[:4])), (b"a", entry(DATA_OF[4:], offset=4))]),
    "a key that is no text": ("bad-source", [(b"\xff", entry(DATA_OF))]),
    "an entry that is no message": ("bad-source", [(b"a", b"\xff" * 12)]),
    "a part of nothing": ("bad-source", [(PART, entry(DATA_OF[:4]))]),
    "a part that is not there": ("bad-source", [(b"a", entry(b"", shape=(8,), size=0) + message(7, EXTENT))]),
    "parts that leave a hole": (
        "bad-source",
        [(PART, entry(DATA_OF[:4])), (b"a", entry(b"", shape=(8,), size=0) + message(7, EXTENT))],
    ),
    "the same part twice": (
        "bad-source",
        [(PART, entry(DATA_OF[:4])), (b"a", entry(b"", shape=(8,), size=0) + message(7, EXTENT) * 2)],
    ),
    "strings in parts": ("unsupported-source", [(b"a", entry(b"", 7, (8,), size=0) + message(7, EXTENT))]),
    "strings without bytes": ("limit-exceeded", [(b"a", entry(DATA_OF, dtype=7, shape=(1 << 40,)))]),
    "lists of no strings": ("limit-exceeded", [(b"a", entry(DATA_OF, dtype=7, shape=(1 << 40, 0)))]),
    "strings that are too long": ("bad-source", [(b"a", entry(DATA_OF, dtype=7, shape=(2,)))]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_entries(tmp_path: Path, name: str) -> None:
    code, entries = HOSTILE[name]
    refused(bundle(tmp_path, DATA_OF, *entries), code)


def with_header(header: bytes) -> bytes:
    return index_of([(b"", header)])


TABLES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "compressed": ("unsupported-source", lambda: index_of([HEADER], compression=1)),
    "of LevelDB": ("unsupported-source", lambda: index_of([(b"key", b"value")])),
    "of version 1": ("unsupported-source", lambda: with_header(message(1, b"meta"))),
    "big-endian": ("unsupported-source", lambda: with_header(number(1, 1) + number(2, 1))),
    "of the future": ("unsupported-source", lambda: with_header(number(1, 1) + message(3, number(2, 2)))),
    "of less than no files": ("bad-source", lambda: with_header(number(1, -1))),
    "one block many times": ("bad-source", lambda: index_of([HEADER, (b"a", entry(b""))], times=1000)),
    "without entries": ("unsupported-source", lambda: index_of([])),
}


@pytest.mark.parametrize("name", TABLES)
def test_hostile_tables(tmp_path: Path, name: str) -> None:
    code, make = TABLES[name]
    (tmp_path / "x.index").write_bytes(make())
    refused(tmp_path / "x.index", code)


def test_keys_that_share_a_long_prefix(tmp_path: Path) -> None:
    """Each of them takes four bytes of the file, and a megabyte of memory."""
    first = b"a" * (1 << 20)
    data = b"\0\0" + varint(len(HEADER[1])) + HEADER[1] + b"\0" + varint(len(first)) + b"\0" + first
    data += b"".join(varint(len(first) + i) + b"\1\0a" for i in range(10_000)) + bytes(4) + (1).to_bytes(4, "little")
    data += b"\0" + masked(data + b"\0")
    handle = varint(0) + varint(len(data) - 5)
    listed = block([(b"~", handle)])
    footer = (handle + varint(len(data)) + varint(len(listed) - 5)).ljust(40, b"\0")
    (tmp_path / "x.index").write_bytes(data + listed + footer + 0xDB4775248B80FB57.to_bytes(8, "little"))
    refused(tmp_path / "x.index", "limit-exceeded")


def node(*attributes: tuple[str, str], child: int | None = None) -> bytes:
    """An object with values of these names and keys, which holds another, or itself."""
    found = b"" if child is None else message(1, number(1, child) + message(2, b"itself"))
    return message(
        1, found + b"".join(message(2, message(2, n.encode()) + message(3, k.encode())) for n, k in attributes)
    )


VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def names_of(tmp_path: Path, graph: bytes, *keys: str) -> set[str]:
    data, entries = graph_of(graph, *(key.encode() for key in keys))
    with open_source(str(bundle(tmp_path, data, *entries))) as source:
        return {path_text(path) for path, leaf in walk(source.tree) if is_tensor(leaf)}


def test_odd_graphs_of_objects(tmp_path: Path) -> None:
    cycle = node(("w", f"a/0{VALUE}"), child=0) + node(child=1 << 40)
    assert names_of(tmp_path, cycle, f"a/0{VALUE}", f"b{VALUE}") == {"a/w", "b"}
    # names that take the place of others: positions stay
    taken = node(("x", f"a/0{VALUE}"))
    assert names_of(tmp_path, taken, f"a/0{VALUE}", f"a/x{VALUE}") == {"a/0", "a/x"}
    # a value that stands above another: all as they are stored
    keys = [f"a{VALUE}", f"a/b{VALUE}"]
    assert names_of(tmp_path, b"", *keys) == set(keys)
    assert names_of(tmp_path, b"", "a/.OPTIMIZER_SLOT/o/m/.ATTRIBUTES/other", "plain/key") == {
        "o/slots/m/a/other",
        "plain/key",
    }
    for graph in (b"\xff", message(1, b"\x0b"), node(("n", "k"))[:-1]):
        data, entries = graph_of(graph)
        refused(bundle(tmp_path, data, *entries), "bad-source")


def test_any_change_of_a_graph(tmp_path: Path) -> None:
    """Whose checksums are right."""
    graph = node(("w", f"a/0{VALUE}"), ("v", f"a/1{VALUE}"), child=0)
    for at in range(len(graph)):
        for value in (1, 0xFF):
            changed = graph[:at] + bytes([value]) + graph[at + 1 :]
            with contextlib.suppress(ckptfmt.CkptError):
                assert len(names_of(tmp_path, changed, f"a/0{VALUE}", f"a/1{VALUE}")) == 2


def test_keys_that_are_too_deep(tmp_path: Path) -> None:
    data, entries = graph_of(b"", b"a/" * 300)
    refused(bundle(tmp_path, data, *entries), "too-deep")
    data, entries = graph_of(b"", *(b"%05d" % i + b"/" * 250 for i in range(4500)))
    refused(bundle(tmp_path, data, *entries), "limit-exceeded")


def test_links_out_of_the_folder(tmp_path: Path) -> None:
    index = copied(tmp_path, "saver")
    shard = next(index.parent.glob("*.data-*"))
    shard.rename(tmp_path / "outside")
    shard.symlink_to(tmp_path / "outside")
    refused(index, "unsafe-source")


def test_a_link_of_the_index_itself_is_followed(tmp_path: Path) -> None:
    index = copied(tmp_path, "saver")
    (tmp_path / "link.index").symlink_to(index)
    assert refused(tmp_path / "link.index", "bad-source").advice
