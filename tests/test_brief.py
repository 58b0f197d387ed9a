"""Reports fit a screen, whatever they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from migrations import document

import ckptfmt

SCREEN = 24 * 80


def test_a_match_report() -> None:
    names = tuple(f"model.layers.{number}.self_attn.q_proj.weight" for number in range(20_000))
    other = tuple((name, (4096, 4096), (4096, 1024)) for name in names)
    report = ckptfmt.MatchReport(names, names, other, other, other, names, tuple(zip(names, names, strict=True)))
    assert len(repr(report)) < SCREEN
    assert "and 19997 more" in repr(report)
    assert repr(ckptfmt.MatchReport()) == "MatchReport()"
    assert repr(ckptfmt.MatchReport(missing=("a",))) == "MatchReport(missing=('a',))"


def test_reports_of_a_large_tree(tmp_path: Path) -> None:
    tree = {f"layers.{number}": np.ones(number + 1, np.float32) for number in range(500)}
    base = np.ones(1000)
    tree |= {f"view.{number}": base[number : number + 2] for number in range(300)}
    reports: list[Any] = [ckptfmt.save(tmp_path / "c.ckpt", tree, durable=False, schema=("s", "1"))]
    other = {name: value + 1 for name, value in tree.items()}
    ckptfmt.save(tmp_path / "d.ckpt", other, durable=False)
    reports.append(ckptfmt.diff(tmp_path / "c.ckpt", tmp_path / "d.ckpt"))
    reports.append(ckptfmt.migrate(tmp_path / "c.ckpt", tmp_path / "m.ckpt", document(rest="keep"), schema="2"))
    reports.append(reports[-1].plan)
    reports.append(ckptfmt.convert(tmp_path / "d.ckpt", tmp_path / "d.npz", allow_loss=True))
    data = bytearray((tmp_path / "d.ckpt").read_bytes())
    for number in range(200, 400):
        data[data.index(other[f"layers.{number}"].tobytes())] ^= 1
    (tmp_path / "d.ckpt").write_bytes(data)
    reports.append(ckptfmt.verify(tmp_path / "d.ckpt"))
    reports.append(ckptfmt.repair(tmp_path / "d.ckpt", tmp_path / "r.ckpt"))
    reports.append(ckptfmt.verify_folder(tmp_path))
    reports.append(ckptfmt.gc(tmp_path))
    for report in reports:
        assert len(repr(report)) < SCREEN, repr(report)
        assert repr(report).startswith(type(report).__name__ + "(")
