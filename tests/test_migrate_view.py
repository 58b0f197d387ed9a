"""Checkpoints seen at another version of their schema, and what is read of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from migrations import W, X, document, refusal, saved

import ckptfmt


def test_a_slice_reads_the_blocks_that_it_needs(tmp_path: Path) -> None:
    rows, columns = 3 * 4096, 1024
    qkv = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    sizes = [rows // 3] * 3
    split = document({"from": "qkv", "with": [{"op": "split", "axis": 0, "sizes": sizes}], "to": ["q", "k", "v"]})
    path = saved(tmp_path, {"qkv": qkv})
    with ckptfmt.open(path, schema="2", migrations=split) as view:
        assert view.bytes_read == 0
        part = view["k"][100:1300]
        np.testing.assert_array_equal(part, qkv[rows // 3 + 100 : rows // 3 + 1300])
        assert view.bytes_read <= 1.1 * part.nbytes + 2 * (4 << 20)
    with ckptfmt.open(path, schema="2", migrations=split, verify=False) as view:
        part = view["v"][7:1000:3]
        np.testing.assert_array_equal(part, qkv[2 * rows // 3 + 7 : 2 * rows // 3 + 1000 : 3])
        assert view.bytes_read <= 1.1 * part.nbytes


def test_a_rearranged_slice_reads_little_around_it(tmp_path: Path) -> None:
    heads, depth, columns = 8, 512, 2048  # 32 MiB
    w = np.arange(heads * 2 * depth // 2 * columns, dtype=np.int32).reshape(heads * depth, columns)
    step = {"op": "rearrange", "pattern": "(h two d) e -> (h d two) e", "axes": {"h": heads, "two": 2}}
    expected = w.reshape(heads, 2, depth // 2, columns).transpose(0, 2, 1, 3).reshape(w.shape)
    path = saved(tmp_path, {"w": w})
    with ckptfmt.open(path, schema="2", migrations=document({"from": "w", "with": [step], "to": "w"})) as view:
        part = view["w"][depth : 2 * depth]  # one head
        np.testing.assert_array_equal(part, expected[depth : 2 * depth])
        assert view.bytes_read <= part.nbytes + 2 * (4 << 20)
        np.testing.assert_array_equal(view["w"][100:2900:7, ::-5], expected[100:2900:7, ::-5])
    turned = {"op": "rearrange", "pattern": "(h d) e -> (d h) e", "axes": {"h": heads}}
    with ckptfmt.open(
        path, schema="2", migrations=document({"from": "w", "with": [turned], "to": "w"}), verify=False
    ) as view:
        whole = w.reshape(heads, depth, columns).transpose(1, 0, 2).reshape(w.shape)
        np.testing.assert_array_equal(view["w"][40:72], whole[40:72])
        assert view.bytes_read < 0.6 * w.nbytes  # the heads lie apart, and little between is read


def test_a_view_looks_like_a_checkpoint(tmp_path: Path) -> None:
    path = saved(tmp_path, {"m": [W, X], "t": np.array(["2024-02-29"], "M8[D]"), "n": 7}, metadata={"loss": 1.5})
    made = document({"from": "m/{i:int}", "to": "n{i}"}, rest="keep")
    with ckptfmt.open(path, schema="2", migrations=made) as view:
        assert view.schema == ckptfmt.Schema("s", "2")
        assert view.metadata == {"loss": 1.5}
        assert [*view] == ["n0", "n1", "t"]
        assert view["n"] == 7
        assert view["n0",].shape == (2, 3)
        assert view["t"][0] == np.datetime64("2024-02-29")
        assert np.asarray(view["n1"], np.float32).tolist() == [0, 1, 2, 3]
        assert view["n1"][2] == 2
        assert repr(view["n0"]) == "<MigratedTensor 'n0' float32 (2, 3)>"
        assert view["n0"].nbytes == 24
        assert view.load(select="n0")["n0"].tolist() == W.tolist()
        refusal("no-match", view.load, select="x")
        refusal("no-such-path", view.__getitem__, "m/0")
        refusal("bad-index", view["n0"].__getitem__, (0, 0, 0))
    error = refusal("bad-option", view["n0"].read)
    assert error.tensor == "m/0"


def test_damage_is_named_by_the_tensor_of_the_source(tmp_path: Path) -> None:
    path = saved(tmp_path, {"old": np.arange(1000), "fine": X})
    raw = bytearray(path.read_bytes())
    raw[raw.index(np.arange(1000).tobytes()) + 77] ^= 1
    path.write_bytes(raw)
    made = document({"from": "old", "to": "new"}, rest="keep")
    with ckptfmt.open(path, schema="2", migrations=made) as view:
        assert view["fine"].read().tolist() == X.tolist()
        assert refusal("block-digest", view["new"].read).tensor == "old"
    refusal("block-digest", ckptfmt.migrate, path, tmp_path / "dst", made, schema="2", verify=True)
    assert not (tmp_path / "dst").exists()
