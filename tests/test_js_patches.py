"""Patches (SPEC.md section 7.4) before the reader in JavaScript, in Node and in the page of the viewer."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from browser import chromium as chromium
from javascript import JS, node
from playwright.sync_api import Browser, expect
from viewing import looking

import ckptfmt


@pytest.fixture
def patch(tmp_path: Path) -> Path:
    base = {"w": np.arange(5000.0), "kept": np.arange(9)}
    ckptfmt.save(tmp_path / "base.ckpt", base, durable=False)
    ckptfmt.save(tmp_path / "new.ckpt", {**base, "w": base["w"] + 1, "whole": np.ones(3)}, durable=False)
    ckptfmt.patch(tmp_path / "base.ckpt", tmp_path / "new.ckpt", tmp_path / "p.ckpt", durable=False)
    return tmp_path / "p.ckpt"


def test_it_is_refused_by_name_with_what_to_do(patch: Path) -> None:
    program = f"import {{ open }} from {(JS / 'dist' / 'index.js').as_uri()!r}; await open(process.argv[1]);"
    words = [node(), "--input-type=module", "--eval", program, str(patch)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    for words_of_it in ("unknown-feature", '"patch"', "ckptfmt apply"):
        assert words_of_it in done.stderr


def test_the_page_says_what_to_do(chromium: Browser, patch: Path) -> None:
    with looking(chromium) as looker:
        looker.drop(patch)
        told = looker.page.get_by_role("alert").filter(has_text="unknown-feature")
        expect(told).to_contain_text("ckptfmt apply")
        looker.drop(patch.with_name("new.ckpt"))
        looker.wait()
