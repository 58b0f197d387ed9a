"""One flipped bit, anywhere: loading notices it or no value depends on it; verification finds every one and says where.
[BLK-004] [BLK-005] [COM-003] [FRM-004]"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import KINDS, LAYOUTS, METADATA, PAGED, Zone, flipped, save_varied, zones

import ckptfmt
from ckptfmt.format.names import path_label
from ckptfmt.testing import equal_trees
from stress import bitflips

EDGE = 16  # bytes at either end of a zone of which none is passed over


def places(zone: Zone, bits: range, step: int = 1) -> Iterator[tuple[int, int]]:
    """Every byte of a zone with each bit of `bits`, or between its ends every byte of `step`; bits move from byte to
    byte, so that each comes up."""
    for offset in range(zone.start, zone.stop):
        is_inside = zone.start + EDGE <= offset < zone.stop - EDGE
        if is_inside and (offset - zone.start) % step:
            continue
        for bit in bits:
            yield offset, (offset // step + bit) % 8


def text_of(zone: Zone) -> str | None:
    return None if zone.tensor is None else path_label(zone.tensor)


def check_load(path: Path, tree: Any) -> None:
    """Loading fails with a code, or gives exactly what was saved."""
    try:
        with ckptfmt.open(path) as checkpoint:
            loaded, metadata = checkpoint.load(), checkpoint.metadata
    except ckptfmt.CkptError as error:
        assert isinstance(error, ckptfmt.CorruptError | ckptfmt.UnsupportedError), error
        return
    assert equal_trees(loaded, tree)
    assert equal_trees(metadata, METADATA)


def check_verify(path: Path, zone: Zone, offset: int) -> None:
    """Verification names the place. A version that became a later one is refused before anything is checked."""
    try:
        report = ckptfmt.verify(path)
    except ckptfmt.UnsupportedError as error:
        assert (error.code, zone.where) == ("newer-format", "commit")
        return
    assert not report.ok
    (damage,) = report.damage
    if zone.where == "commit":
        assert damage.code in ("bad-record", "truncated")
        return
    assert (damage.where, damage.tensor) == (zone.where, text_of(zone))
    if zone.where == "frame":
        assert (damage.code, damage.object, damage.offset) == ("frame-digest", zone.object, offset)
    elif zone.where == "block":
        assert (damage.code, damage.object) == ("block-digest", zone.object)
        assert damage.offset is not None
        assert damage.length is not None
        assert damage.offset <= offset < damage.offset + damage.length
        assert (damage.chunk, damage.block) == (0, 0)
    else:
        part = zone.object if zone.object.startswith(("parts/", "pages.bin")) else ""
        assert zone.object.startswith("parts/") or damage.offset == zone.start
        assert (damage.code, damage.object) == ("manifest-digest", part)


def check_others(path: Path, zone: Zone, tree: Any) -> None:
    """With a damaged chunk every other tensor still loads, and the damaged one says who it is."""
    with ckptfmt.open(path) as checkpoint:
        damaged = checkpoint[zone.tensor]
        for keys, tensor in checkpoint.tensors.items():
            if tensor.name == damaged.name:
                with pytest.raises(ckptfmt.CorruptError) as caught:
                    tensor.read()
                assert (caught.value.code, caught.value.tensor) == ("block-digest", text_of(zone))
                assert caught.value.path == str(path)
                continue
            expected = tree
            for key in keys:
                expected = expected[key]
            assert equal_trees(tensor.read(), expected)


@pytest.mark.parametrize("layout", KINDS)
@pytest.mark.parametrize(
    ("bits", "step"),
    [(range(1), 4), pytest.param(range(8), 1, marks=pytest.mark.slow)],
    ids=["a bit of every fourth byte", "all bits"],
)
def test_bytes_of_a_varied_checkpoint(tmp_path: Path, layout: str, bits: range, step: int) -> None:
    path = tmp_path / f"{layout}.ckpt"
    tree = save_varied(path, layout)
    covered = zones(path)
    few = 16 if layout in PAGED else 1  # of whose frame, which is as that of any other, some bytes will do
    assert sum(zone.stop - zone.start for zone in covered) == sum(
        file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()
    )
    assert {zone.where for zone in covered} == {"block", "frame", "manifest", "commit"}
    for zone in covered:
        for offset, bit in places(zone, bits, step * few if zone.where == "frame" else step):
            with flipped(zone.file, offset, bit):
                check_load(path, tree)
                check_verify(path, zone, offset)
                if zone.where == "block" and bit == 0:
                    check_others(path, zone, tree)
    assert ckptfmt.verify(path).ok


@pytest.mark.parametrize(
    ("layout", "digest", "bits"),
    [
        ("file", "xxh3-128", range(8)),
        ("packed", "blake3", range(2)),
        ("loose", "sha256", range(2)),
        pytest.param("packed", "blake3", range(8), marks=pytest.mark.slow),
        pytest.param("loose", "sha256", range(8), marks=pytest.mark.slow),
    ],
)
def test_every_byte_of_a_small_checkpoint(tmp_path: Path, layout: str, digest: str, bits: range) -> None:
    """All bits of one layout; of the others, where other bytes lie between, two of each byte and all of the record."""
    path = tmp_path / "small.ckpt"
    tree = np.arange(5, dtype=np.uint8)
    ckptfmt.save(path, tree, layout=layout, metadata=METADATA, digest=digest, durable=False)
    for zone in zones(path):
        for offset, bit in places(zone, range(8) if zone.where == "commit" else bits):
            with flipped(zone.file, offset, bit):
                check_load(path, tree)
                check_verify(path, zone, offset)


@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_bit_of_a_large_tensor(tmp_path: Path, layout: str, compression: str | None) -> None:
    """Many blocks and chunks: the damage is named to the block, and the other blocks can still be read."""
    rng = np.random.default_rng(5)
    path = tmp_path / "large.ckpt"
    tree = {"before": np.arange(10), "large": rng.integers(0, 256, (600, 1 << 16), np.uint8), "after": np.arange(10)}
    ckptfmt.save(path, tree, layout=layout, compression=compression, durable=False)
    chunks = [zone for zone in zones(path) if zone.tensor == ("large",)]
    for _ in range(8):
        number = int(rng.integers(len(chunks)))
        zone = chunks[number]
        offset = int(rng.integers(zone.start, zone.stop))
        block = (offset - zone.start) >> 22
        with flipped(zone.file, offset, int(rng.integers(8))), ckptfmt.open(path) as checkpoint:
            with pytest.raises(ckptfmt.CorruptError) as caught:
                checkpoint["large"].read()
            error = caught.value
            assert (error.code, error.tensor, error.chunk, error.block) == ("block-digest", "large", number, block)
            assert error.offset == zone.start + (block << 22)
            for name in ("before", "after"):
                assert equal_trees(checkpoint[name].read(), tree[name])
            readable = 0
            for row in range(0, 600, 40):
                try:
                    assert equal_trees(checkpoint["large"][row], tree["large"][row])
                    readable += 1
                except ckptfmt.CorruptError:
                    pass
            assert readable > 0
            (damage,) = checkpoint.verify().damage
            assert (damage.tensor, damage.chunk, damage.block) == ("large", number, block)


def test_random_bits(tmp_path: Path) -> None:
    """Of each layout, digest and compression; the long run is `python -m stress bitflips`."""
    result = bitflips.run(tmp_path, seed=1, count=576)
    assert result.bad == []
    assert "576 flips in 72 checkpoints" in result.counts


def test_a_flip_that_is_not_noticed_is_found(tmp_path: Path) -> None:
    """The run's own test: a reader that does not verify gives wrong values, and the run says so."""
    path = tmp_path / "x.ckpt"
    ckptfmt.save(path, bitflips.tree(), metadata=bitflips.METADATA, digest="sha256", durable=False)
    assert bitflips.problems(path, bitflips.tree()) == ["verification finds nothing"]
    assert "silently wrong" in bitflips.problems(path, {})
    (block,) = [zone for zone in zones(path) if zone.tensor == ("raw",)]
    bitflips.flip(path, block.start, 0)
    assert bitflips.problems(path, bitflips.tree()) == []


def test_the_frame_digest_matters_to_no_value(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    tree = save_varied(path, "file")
    for zone in zones(path):
        if zone.where == "frame":
            with flipped(path, zone.start, 3):
                assert equal_trees(ckptfmt.load(path), tree)
