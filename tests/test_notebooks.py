"""What notebooks show of objects: small tables, without scripts, whatever names say; and drawings of tensors."""

from __future__ import annotations

import html.parser
import os
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import ml_dtypes
import numpy as np
import pytest

import ckptfmt
from ckptfmt.manager import CheckpointManager, Last, open_run

mpl.use("Agg")
HOSTILE = "<script>alert(1)</script>\u202e\x1b[31m"
LARGEST = 40_000  # characters of any form


class Parsed(html.parser.HTMLParser):
    """The elements of a form, and its text; all that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self._open.append(tag)
        assert {name for name, _ in attrs} <= {"style", "scope"}

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def shown(one: Any) -> str:
    """The text of the form of an object."""
    found = one._repr_html_()
    parsed = Parsed(found)
    assert set(parsed.tags) <= {"div", "strong", "table", "thead", "tbody", "tr", "th", "td"}
    assert len(found) < LARGEST
    words = " | ".join(parsed.words)
    assert "\u202e" not in words
    assert "\x1b" not in words
    return words


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    tree = {"w": np.arange(12, dtype=ml_dtypes.bfloat16).reshape(3, 4), HOSTILE: np.zeros(2), "n": 1}
    ckptfmt.save(tmp_path / "a.ckpt", tree, metadata={HOSTILE: HOSTILE, "loss": 0.5}, schema=("s", "1"), durable=False)
    return tmp_path / "a.ckpt"


# ---- forms


def test_a_checkpoint(saved: Path) -> None:
    with ckptfmt.open(saved) as checkpoint:
        words = shown(checkpoint)
        assert checkpoint.bytes_read == 0
    for said in (str(saved), "tensors | 2", "layout | file", "schema | s 1", "w | bfloat16 | [3, 4] | 24", "alert(1)"):
        assert said in words


def test_a_checkpoint_of_many(tmp_path: Path) -> None:
    """A few are shown, and how many more there are; of very many none, so that none is looked up."""
    ckptfmt.save(tmp_path / "a.ckpt", {f"w{i:05}": np.ones(1) for i in range(1000)}, durable=False)
    assert "and 970 more" in shown(ckptfmt.open(tmp_path / "a.ckpt"))
    ckptfmt.save(tmp_path / "b.ckpt", {f"w{i:05}": np.ones(1, np.int8) for i in range(30_000)}, durable=False)
    checkpoint = ckptfmt.open(tmp_path / "b.ckpt")
    assert "tensors | 30,000" in shown(checkpoint)
    assert "w00000" not in shown(checkpoint)


@pytest.mark.parametrize("tree", [{}, None, np.ones(3)], ids=["empty", "none", "a tensor"])
def test_odd_checkpoints(tmp_path: Path, tree: Any) -> None:
    ckptfmt.save(tmp_path / "a.ckpt", tree, durable=False)
    assert "Checkpoint" in shown(ckptfmt.open(tmp_path / "a.ckpt"))


def test_a_tensor(saved: Path) -> None:
    with ckptfmt.open(saved) as checkpoint:
        words = shown(checkpoint["w"])
        assert checkpoint.bytes_read == 0
        assert "alert(1)" in shown(checkpoint[(HOSTILE,)])
    assert "dtype | bfloat16 | shape | [3, 4] | elements | 12 | bytes | 24" in words


def test_reports(saved: Path) -> None:
    other = saved.parent / "b.ckpt"
    tree = {**ckptfmt.load(saved), "w": np.ones((3, 4), ml_dtypes.bfloat16), "new": np.ones(1)}
    ckptfmt.save(other, tree, durable=False)
    words = shown(ckptfmt.diff(saved, other))
    assert "DiffReport" in words
    assert "added: 1 | new" in words
    assert "changed: " in words
    assert "values" in words
    assert "tensors | 2" in shown(ckptfmt.verify(saved))
    assert "stats" not in shown(ckptfmt.stats(saved))
    data = bytearray(saved.read_bytes())
    with ckptfmt.open(saved) as checkpoint:
        place = data.find(checkpoint["w"][:].tobytes())
    data[place] ^= 1
    saved.write_bytes(data)
    words = shown(ckptfmt.verify(saved))
    assert "damage: 1" in words
    assert "block-digest" in words


def test_a_report_of_very_much() -> None:
    names = tuple(f"layers.{i}" for i in range(100_000))
    words = shown(ckptfmt.MatchReport(names, names, tuple((name, (1, 2), (3,)) for name in names)))
    assert "and 99,970 more" in words


def test_a_run(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path / "run", keep=Last(3), durable=False)
    assert "steps | 0" in shown(manager)
    for step in range(5):
        manager.save(step, {}, metrics={"loss": step / 2, HOSTILE: 1.0})
    words = shown(manager)
    for said in ("steps | 3", "keeps | last 3", "loss=2", "newest, last 3"):
        assert said in words
    damaged = tmp_path / "run" / "step-0000000003.ckpt"
    os.truncate(damaged, 100)
    words = shown(open_run(tmp_path / "run"))  # without a warning
    assert "damaged | 1" in words
    assert "bad-record" in words


# ---- drawings


def drawn(tensor: Any, *arguments: Any, **options: Any) -> Any:
    from matplotlib import pyplot

    axes = tensor.plot(*arguments, **options)
    axes.figure.savefig(os.devnull, format="png")
    pyplot.close("all")
    return axes


SHAPES = [(), (3, 4), (2, 3, 4), (0, 3), (3 << 20,), (3, 1 << 20), (4096, 1024)]
DTYPES = ["float32", "bfloat16", "float8_e4m3fn", "bool", "complex64"]


@pytest.mark.parametrize(("shape", "dtype"), [*((shape, "int8") for shape in SHAPES), *(((5,), one) for one in DTYPES)])
def test_histograms(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    array = (np.arange(np.prod(shape, dtype=int)) % 7).astype(dtype).reshape(shape)
    ckptfmt.save(tmp_path / "a.ckpt", {"w": array}, durable=False)
    with ckptfmt.open(tmp_path / "a.ckpt") as checkpoint:
        axes = drawn(checkpoint["w"], bins=7)
    counts = [patch.get_height() for patch in axes.patches]
    assert min(array.size, 1 << 18) <= sum(counts) <= min(array.size, 1 << 20)
    assert axes.get_title().startswith(f"w\n{dtype} {list(shape)}")
    assert ("every" in axes.get_title()) == (array.size > 1 << 20)


def test_a_histogram_says_what_is_left_out(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "a.ckpt", {"w": np.array([1.0, np.nan, np.inf])}, durable=False)
    with ckptfmt.open(tmp_path / "a.ckpt") as checkpoint:
        assert "without 2 NaN or infinite" in drawn(checkpoint["w"]).get_title()


def test_heat_maps(tmp_path: Path) -> None:
    from matplotlib import pyplot

    small, large = np.arange(12.0).reshape(3, 4), np.arange(2000.0 * 600).reshape(2000, 600).astype(np.float32)
    ckptfmt.save(tmp_path / "a.ckpt", {"small": small, "large": large}, durable=False)
    with ckptfmt.open(tmp_path / "a.ckpt") as checkpoint:
        assert drawn(checkpoint["small"], "heat map").images[0].get_array().tolist() == small.tolist()
        image = drawn(checkpoint["large"], "heat map").images[0].get_array()
        assert image.tolist() == large[::4, ::2].tolist()
        given = pyplot.subplots()[1]
        assert drawn(checkpoint["small"], "heat map", axes=given) is given


def test_drawings_that_cannot_be(saved: Path) -> None:
    with ckptfmt.open(saved) as checkpoint:
        for name, kind in ((HOSTILE, "heat map"), ("w", "pie")):
            with pytest.raises(ckptfmt.InputError) as caught:
                checkpoint[(name,)].plot(kind)
            assert caught.value.code == "bad-option"


def test_without_matplotlib(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    monkeypatch.delattr(mpl, "pyplot", raising=False)
    with ckptfmt.open(saved) as checkpoint, pytest.raises(ckptfmt.UnsupportedError) as caught:
        checkpoint["w"].plot()
    assert (caught.value.code, caught.value.advice) == ("missing-package", "Install it: pip install matplotlib")
