"""Patches in the page of `ckptfmt view`: what they say of themselves, and their numbers once the base is there."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import chromium as chromium
from damage import small_chunks
from playwright.sync_api import Browser, expect
from viewing import Looker, looking
from viewing import looker as looker

import ckptfmt
import ckptfmt.viewing

BASE = {"w": np.arange(40_000.0).reshape(200, 200), "kept": np.arange(600).reshape(20, 30), "old": np.ones(9)}
RESULT: dict[str, Any] = {"model": {"w": BASE["w"].copy(), "kept": BASE["kept"]}, "new": np.arange(6.0)}
RESULT["model"]["w"][3, 5] = -1
NOT_OPEN = "made of one of the base of this patch"


def made(folder: Path, **options: Any) -> tuple[Path, Path]:
    """A base and a patch of it."""
    base, result, patch = (folder / name for name in ("base.ckpt", "result.ckpt", "p.ckpt"))
    ckptfmt.save(base, {"model": BASE}, durable=False, **options)
    ckptfmt.save(result, RESULT, durable=False)
    ckptfmt.patch(base, result, patch, durable=False)
    return base, patch


def first_row(looker: Looker) -> list[float]:
    return [float(cell) for cell in looker.numbers()[0] if cell]


def expect_all(looker: Looker) -> None:
    """The numbers of the result, through the base."""
    expect(looker.page.locator(".lacking")).to_be_empty()
    looker.look("model/w", "3, 4:7")
    assert first_row(looker) == [604, -1, 606]
    expect(looker.page.locator(".status")).to_contain_text("but for bits that differ")
    looker.look("model/kept", "19, 28:")
    assert first_row(looker) == [598, 599]
    expect(looker.page.locator(".status")).to_contain_text("The same as model/kept of base.ckpt")


def test_a_patch_and_then_its_base(looker: Looker, tmp_path: Path) -> None:
    base, patch = made(tmp_path)
    looker.open(patch)
    overview = looker.tab("Overview")
    expect(overview).to_contain_text("1 tensor the same as in the base, 1 with bits that differ, 1 whole")
    with ckptfmt.open(base) as checkpoint:
        expect(looker.page.locator(".lacking")).to_contain_text(checkpoint.manifest_sha256)
    looker.look("new")
    assert first_row(looker) == [0, 1, 2, 3, 4, 5]
    looker.choose("model/w")
    expect(looker.page.locator(".told")).to_contain_text(NOT_OPEN)
    expect(looker.page.get_by_role("button", name="Verify this tensor")).to_be_disabled()
    looker.visited.screenshot("viewer-patch")
    looker.drop(base)
    expect(looker.page.locator(".lacking")).to_be_empty()
    expect(looker.page.get_by_role("heading", level=1)).to_have_text("p.ckpt")
    expect_all(looker)


@pytest.mark.parametrize("layout", ["packed", "loose"])
def test_a_base_that_was_looked_at_before(looker: Looker, tmp_path: Path, layout: str) -> None:
    base, patch = made(tmp_path, layout=layout)
    looker.drop(base)
    looker.wait()
    looker.drop(patch)
    expect(looker.page.get_by_role("heading", level=1)).to_have_text("p.ckpt")
    expect_all(looker)


def test_both_at_once(looker: Looker, tmp_path: Path) -> None:
    base, patch = made(tmp_path)
    looker.drop(base, patch)
    expect(looker.page.get_by_role("heading", level=1)).to_have_text("p.ckpt")
    expect_all(looker)
    looker.drop(base, tmp_path / "result.ckpt")
    expect(looker.page.get_by_role("alert").filter(has_text="no patch with its base")).to_be_visible()


def test_another_is_no_base(looker: Looker, tmp_path: Path) -> None:
    base, patch = made(tmp_path)
    looker.open(patch)
    with looker.page.expect_file_chooser() as chosen:
        looker.page.get_by_role("button", name="Choose the base").click()
    chosen.value.set_files(str(tmp_path / "result.ckpt"))
    expect(looker.page.get_by_role("alert")).to_contain_text("result.ckpt is not the base of p.ckpt")
    expect(looker.page.get_by_role("heading", level=1)).to_have_text("result.ckpt")
    looker.drop(patch)
    with looker.page.expect_file_chooser() as chosen:
        looker.page.get_by_role("button", name="Choose the base").click()
    chosen.value.set_files(str(base))
    expect_all(looker)


def damage(path: Path, member: str) -> None:
    """Flip a bit of a chunk."""
    with zipfile.ZipFile(path) as archive:
        [name] = [name for name in archive.namelist() if name.startswith(member)]
        stored = archive.read(name)
    data = bytearray(path.read_bytes())
    data[data.index(stored) + 30_000] ^= 4
    path.write_bytes(data)


def test_damage_of_either_side(looker: Looker, tmp_path: Path) -> None:
    with small_chunks():
        base, patch = made(tmp_path)
    damage(base, "tensors/model/w/c/")
    looker.open(patch)
    panel = looker.tab("Damage")
    panel.get_by_role("button", name="Verify every byte").click()
    expect(panel).to_contain_text("nobody has looked at its base")
    looker.drop(base)
    expect(looker.page.locator(".lacking")).to_be_empty()
    looker.choose("model/w")
    looker.page.locator(".sight:not([hidden])").wait_for()
    expect(looker.page.locator(".told")).to_contain_text("Damaged, and not shown: rows")
    expect(looker.page.locator(".status .problem")).to_contain_text("that is damaged")
    expect(looker.page.locator(".numbers tbody tr").nth(3)).to_contain_text("-1")  # of another block
    panel = looker.tab("Damage")
    expect(panel).to_contain_text("model/w, in the base")
    panel.get_by_role("button", name="Verify every byte").click()
    expect(panel).to_contain_text("1 fault: all there are")
    looker.look("model/kept")
    expect(looker.page.locator(".status")).to_contain_text("every byte is as its digest says")


def test_a_run_in_which_the_base_is(chromium: Browser, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    made(run)
    for step, name in enumerate(("base.ckpt", "result.ckpt", "p.ckpt")):
        (run / name).rename(run / f"step-{step}.ckpt")
    with ckptfmt.viewing.view(run) as page, looking(chromium, page.url) as looker:
        looker.wait()
        expect(looker.page.get_by_role("heading", level=1)).to_have_text("step-2.ckpt")
        looker.look("model/kept", "19, 28:")
        assert first_row(looker) == [598, 599]
        expect(looker.page.locator(".status")).to_contain_text("The same as model/kept of step-0.ckpt")
        looker.look("model/w", "3, 4:7")  # of which zstd has the differences
        assert first_row(looker) == [604, -1, 606]
        assert looker.visited.problems == []
