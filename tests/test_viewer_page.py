"""The page of `ckptfmt view` as a file: what is checked in is what its sources make, and nothing else can run in it."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ckptfmt.viewing.page import PLACE, page

VIEWER = Path(__file__).parents[1] / "viewer"
PROGRAM = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


def missing() -> str:
    """Why the page cannot be made here; "" if it can."""
    if shutil.which("node") is None:
        return "needs Node 20 or later"
    folders = (VIEWER, VIEWER.parent / "js")
    lacking = [folder.name for folder in folders if not (folder / "node_modules").exists()]
    return f"run `make page`: {' and '.join(lacking)} have not what they need" if lacking else ""


def run(*words: object) -> str:
    done = subprocess.run([*map(str, words)], cwd=VIEWER, capture_output=True, text=True, timeout=200)
    return done.stdout + done.stderr if done.returncode else ""


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_the_page_is_what_its_sources_make(tmp_path: Path) -> None:
    assert run("node", "build.mjs", tmp_path / "page.html") == ""
    is_same = (tmp_path / "page.html").read_bytes() == page()  # pytest would take minutes to say where it differs
    assert is_same, "run `make page`"


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_the_types_of_the_sources_fit() -> None:
    assert run("node_modules/.bin/tsc", "--noEmit") == ""


def test_its_policy_lets_nothing_else_run() -> None:
    """One program and one style, by their digests; no markup that has handlers, and nothing from elsewhere."""
    data = page()
    (policy,) = re.findall(rb'http-equiv="Content-Security-Policy" content="([^"]*)"', data)
    (program,) = PROGRAM.findall(data)
    (style,) = re.findall(rb"<style>(.*?)</style>", data, re.DOTALL)
    words = dict(part.strip().partition(" ")[::2] for part in policy.decode().split(";"))
    digests = [base64.b64encode(hashlib.sha256(part).digest()).decode() for part in (program, style)]
    assert words["default-src"] == "'none'"
    assert words["script-src"] == f"'sha256-{digests[0]}' 'wasm-unsafe-eval'"
    assert words["style-src"] == f"'sha256-{digests[1]}'"
    assert "unsafe-inline" not in policy.decode()
    rest = PROGRAM.sub(b"", data).replace(style, b"")
    assert not re.search(rb"(?:src|href|srcset|action)=|@import|url\(", rest + style)
    assert data.count(PLACE) == 1


def test_text_goes_in_as_text_alone() -> None:
    """No source of the page makes elements from a string, or code."""
    words = (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        r"document\.write",
        "DOMParser",
        r"\beval\(",
        "new Function",
    )
    made = re.compile("|".join((*words, "createContextualFragment")))
    for source in (VIEWER / "src").rglob("*.ts"):
        assert not made.search(source.read_text()), source
