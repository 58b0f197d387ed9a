"""`ckptfmt.stats`: exact counts for every dtype, and numbers as NumPy gives them for the whole."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from peers import peer

import ckptfmt
from ckptfmt.conversion import source
from ckptfmt.format.dtypes import DTYPES
from ckptfmt.maintenance import statistics
from ckptfmt.reading.measuring import measure_array

torch = peer("torch")

SMALL = [name for name, row in DTYPES.items() if row.numpy.itemsize <= 2 and name != "bool" and "complex" not in name]


def of(path: Path, values: Any, **options: Any) -> ckptfmt.TensorStats:
    ckptfmt.save(path / "x.ckpt", {"t": values}, overwrite=True, durable=False)
    (found,) = ckptfmt.stats(path / "x.ckpt", **options).tensors
    return found


def every_value(name: str) -> Any:
    """Every bit pattern of a dtype."""
    row = DTYPES[name]
    if row.bits == 16:
        return np.arange(1 << 16, dtype=np.uint16).view(row.numpy)
    return np.arange(1 << row.bits, dtype=np.uint8).view(row.numpy)


@pytest.mark.parametrize("name", SMALL)
def test_every_value_of_small_dtypes(tmp_path: Path, name: str) -> None:
    values = every_value(name)
    found = of(tmp_path, values)
    numbers = [float(value) for value in values]
    finite = [number for number in numbers if math.isfinite(number)]
    assert (found.dtype, found.elements, found.shape) == (name, len(numbers), (len(numbers),))
    assert found.nan == sum(math.isnan(number) for number in numbers)
    assert (found.positive_inf, found.negative_inf) == (numbers.count(math.inf), numbers.count(-math.inf))
    assert found.inf == found.positive_inf + found.negative_inf
    assert found.zeros == numbers.count(0.0)
    assert (found.min, found.max) == (min(finite), max(finite))
    assert found.mean == pytest.approx(math.fsum(finite) / len(finite), abs=1e-9)
    assert found.norm == pytest.approx(math.hypot(*finite))
    least = float(ml_dtypes.finfo(values.dtype).smallest_normal) if "float" in name else 0.0
    assert found.subnormals == sum(0 < abs(number) < least for number in finite)


@pytest.mark.parametrize(("dtype", "count"), [(np.float32, 4), (np.float64, 4), (np.complex64, 3)])
def test_subnormals_of_wide_dtypes(tmp_path: Path, dtype: Any, count: int) -> None:
    part = np.empty(0, dtype).real.dtype
    tiny, least = np.finfo(part).tiny, np.finfo(part).smallest_subnormal
    values = np.array([0, tiny, -tiny, least, -least, tiny / 2, -tiny / 2, 1], part)
    if dtype is np.complex64:
        values = np.array([0, tiny, 1j * tiny, least, 1 + 1j * least, complex(least, -least)], dtype)
    assert of(tmp_path, values).subnormals == count


def test_numbers_far_from_each_other(tmp_path: Path) -> None:
    found = of(tmp_path, np.array([1e300, -1e300, 1e-300]))
    assert found.norm == pytest.approx(math.sqrt(2) * 1e300)
    assert (found.min, found.max) == (-1e300, 1e300)
    found = of(tmp_path, np.array([2**63 - 1, -(2**63), 0]))
    assert (found.min, found.max, found.zeros, found.subnormals) == (-(2**63), 2**63 - 1, 1, 0)


def test_nothing_is_none(tmp_path: Path) -> None:
    for values in (np.zeros((0, 3)), np.full(3, np.nan)):
        found = of(tmp_path, values)
        assert (found.min, found.max, found.mean, found.std, found.norm) == (None, None, None, None, 0.0)
        assert found.nan == values.size
    assert of(tmp_path, np.array(2.5)).mean == 2.5
    assert of(tmp_path, np.array([True, False, True])).mean == pytest.approx(2 / 3)


def test_parts_give_what_the_whole_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).standard_normal((300, 70)).astype(np.float32)
    values[3, 5], values[7, 1], values[200] = np.nan, np.inf, 0
    whole = of(tmp_path, values)
    monkeypatch.setattr(source, "SLAB", 1000)
    parts = of(tmp_path, values)
    for name in ("elements", "min", "max", "zeros", "nan", "positive_inf", "negative_inf", "subnormals"):
        assert getattr(parts, name) == getattr(whole, name)
    for name in ("mean", "std", "norm"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-12)
    kept = values[np.isfinite(values)].astype(np.float64)
    assert whole.std == pytest.approx(kept.std())
    assert whole.mean == pytest.approx(kept.mean())


def test_what_is_asked_for(tmp_path: Path) -> None:
    tied = np.ones(3)
    ckptfmt.save(tmp_path / "x.ckpt", {"a": {"w": tied, "v": np.zeros(2)}, "b": tied, "n": 1}, compression="zstd")
    report = ckptfmt.stats(tmp_path / "x.ckpt")
    assert [(one.name, one.path) for one in report.tensors] == [("a/w", ("a", "w")), ("a/v", ("a", "v"))]
    assert [one.name for one in ckptfmt.stats(tmp_path / "x.ckpt", select="b").tensors] == ["b"]
    assert [one.name for one in ckptfmt.stats(tmp_path / "x.ckpt", select=["a/v", "b"]).tensors] == ["a/v", "b"]
    with pytest.raises(ckptfmt.SelectionError, match="no tensor matches 'a/x'"):
        ckptfmt.stats(tmp_path / "x.ckpt", select="a/x")
    assert len(repr(report)) < 1000
    torch.save({"w": torch.ones(3, dtype=torch.bfloat16)}, tmp_path / "x.pt")
    (found,) = ckptfmt.stats(str(tmp_path / "x.pt")).tensors
    assert (found.dtype, found.mean) == ("bfloat16", 1.0)


def test_damage_is_found(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "x.ckpt", {"t": np.ones(5000)}, durable=False)
    raw = bytearray((tmp_path / "x.ckpt").read_bytes())
    raw[20_000] ^= 1
    (tmp_path / "x.ckpt").write_bytes(raw)
    with pytest.raises(ckptfmt.CorruptError) as raised:
        ckptfmt.stats(tmp_path / "x.ckpt")
    assert raised.value.tensor == "t"


@pytest.mark.parametrize("layout", ["file", "packed", "loose"])
@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.parametrize("name", ["float32", "bfloat16", "float8_e4m3fn", "float6_e2m3fn", "int4", "uint64", "bool"])
def test_every_layout_and_codec(tmp_path: Path, layout: str, compression: str | None, name: str) -> None:
    """Small and large tensors, whole bytes and not, many at once: the same as of the arrays themselves."""
    rng, row = np.random.default_rng(0), DTYPES[name]
    draw = rng.integers(0, 2 if name == "bool" else 1 << min(row.bits, 8), (40, 40_001))
    values = draw.astype(np.uint8).view(row.numpy) if row.bits <= 8 else draw.astype(row.numpy)
    tree = {"large": values, "even": values[:3, :40].copy(), "odd": values[1, :33], "none": values[:0]}
    tree["one"] = values[0, :1].reshape(())
    options: Any = {"layout": layout, "compression": compression}
    ckptfmt.save(tmp_path / "x", tree, durable=False, **options)
    done: list[tuple[int, int]] = []
    report = ckptfmt.stats(tmp_path / "x", progress=lambda *now: done.append(now))
    assert done[-1][0] == done[-1][1] > 0
    assert [one.name for one in report.tensors] == list(tree)
    for one in report.tensors:
        wanted = measure_array(row, np.asarray(tree[one.name]))
        assert (one.elements, one.min, one.max, one.nan) == (wanted[0], wanted.least, wanted.greatest, wanted.nan)
        assert (one.zeros, one.saturated, one.effective_bits) == (wanted.zeros, wanted.saturated, wanted.bits)
        if wanted.finite:
            assert one.mean == pytest.approx(float(wanted.mean), rel=1e-13, abs=1e-13)
            assert one.std == pytest.approx(wanted.std, rel=1e-10)


def test_the_number_of_threads_is_nothing_to_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    tree = {"a": rng.standard_normal(3_000_000), **{f"b{i}": rng.standard_normal(i) for i in range(200)}}
    ckptfmt.save(tmp_path / "x.ckpt", tree, durable=False)
    found = []
    for threads in (1, 2, 7):
        monkeypatch.setattr(statistics, "THREADS", threads)
        found.append(ckptfmt.stats(tmp_path / "x.ckpt"))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_damage_in_the_middle(tmp_path: Path, compression: str | None) -> None:
    """No figure is given of what is damaged, wherever it is, and the error says where; what is chosen beside it is."""
    tree = {"a": np.arange(3_000_000.0), **{f"b{i}": np.full(9, float(i)) for i in range(50)}}
    path = tmp_path / "x.ckpt"
    ckptfmt.save(path, tree, durable=False, compression=compression)
    sound = path.read_bytes()
    places = {"a": sound.index(b"PK\x01\x02") // 2}
    if compression is None:
        places["b7"] = sound.index(np.full(9, 7.0).tobytes())
    for name, at in places.items():
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
        with pytest.raises(ckptfmt.CorruptError) as raised:
            ckptfmt.stats(path)
        assert (raised.value.code, raised.value.tensor) == ("block-digest", name)
        assert len(ckptfmt.stats(path, select="b1*").tensors) == 11


def test_a_data_frame(tmp_path: Path) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    ckptfmt.save(tmp_path / "x.ckpt", {"a": np.array([1.0, np.inf]), "b": {"c": np.arange(3)}}, durable=False)
    frame = ckptfmt.stats(tmp_path / "x.ckpt").to_pandas()
    assert list(frame.index) == ["a", "b/c"]
    assert (frame.loc["b/c", "max"], frame.loc["a", "inf"], frame.loc["b/c", "path"]) == (2, 1, ("b", "c"))
    assert list(frame.sort_values("norm").index) == ["a", "b/c"]
