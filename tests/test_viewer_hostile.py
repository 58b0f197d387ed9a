"""Files from strangers in the page of `ckptfmt view`: no script runs, nothing hides, and memory stays bounded."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import chromium as chromium
from damage import rewrite_manifest
from playwright.sync_api import Browser, expect
from viewing import Looker, looking_alone

import ckptfmt

SCRIPTS = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "\"><svg onload=alert(1)>",
    "javascript:alert(1)",
    "${alert(1)}",
    "__proto__",
    "constructor",
    "a" * 20_000,
]  # fmt: skip
HIDING = "gpj.\u202etxe\u2066\x1b[31m\0\u200b\ufeff\u2028z"
HEAP = 100 << 20  # bytes that a page with a hostile file may hold


@pytest.fixture
def looker(chromium: Browser) -> Iterator[Looker]:
    with looking_alone(chromium) as looker:
        said: list[str] = []
        looker.page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        yield looker
        assert said == []


def hostile_tree() -> dict[str, Any]:
    names = [*SCRIPTS, HIDING]
    tensors = {name: np.full((2, 2), number, np.int8) for number, name in enumerate(names)}
    return {
        "tensors": tensors,
        "values": dict(zip(names, names, strict=True)),
        **{name: {"w": 1} for name in names[:3]},
    }


def test_names_and_values_are_text(looker: Looker, tmp_path: Path) -> None:
    path = tmp_path / "<img src=x onerror=alert(1)>.ckpt"
    schema = ("<script>alert(1)</script>", "<b>1</b>")
    ckptfmt.save(path, hostile_tree(), metadata={name: name for name in SCRIPTS}, schema=schema, durable=False)
    rewrite_manifest(path, lambda manifest: manifest.update(generator="<img src=x onerror=alert(1)>"))
    looker.open(path)
    for label in ("tensors", "values"):
        looker.rows.filter(has=looker.page.get_by_text(label, exact=True)).click()
        looker.page.wait_for_timeout(100)
    looker.page.get_by_label("Search tensors").fill("tensors/")
    expect(looker.page.locator(".found-count")).to_contain_text(f"{len(SCRIPTS) + 1} of")
    for number in range(len(SCRIPTS) + 1):
        looker.rows.nth(number).click()
        looker.seen()
    for tab in ("Overview", "Metadata", "Damage"):
        looker.tab(tab)
        looker.page.wait_for_timeout(50)
    made = looker.page.evaluate(
        "[...document.querySelectorAll('img, script:not(body > script), iframe, svg[onload], b')].length"
    )
    assert made == 0
    assert looker.page.evaluate("({}).polluted === undefined && Object.keys(Object.prototype).length === 0")


def test_nothing_hides(looker: Looker, tmp_path: Path) -> None:
    """No character of a name turns what stands beside it, or is not seen."""
    ckptfmt.save(tmp_path / "a.ckpt", {HIDING: np.zeros(2), "v": HIDING}, metadata={HIDING: HIDING}, durable=False)
    looker.open(tmp_path / "a.ckpt")
    looker.rows.first.click()
    looker.seen()
    looker.tab("Metadata")
    text = looker.page.locator("body").evaluate("body => body.textContent")
    assert not set(HIDING) - {*"gpj.txez", "[", "3", "1", "m"} & set(text)
    assert "gpj.\\u202etxe" in text
    assert "\\x1b[31m" in text


def memory(looker: Looker) -> int:
    session = looker.page.context.new_cdp_session(looker.page)
    session.send("HeapProfiler.collectGarbage")
    return int(session.send("Runtime.getHeapUsage")["usedSize"])


def many_axes(path: Path) -> None:
    ckptfmt.save(path, {"w": np.zeros([1] * 40 + [3], np.int8)}, durable=False)


def huge_shape(path: Path) -> None:
    """A tensor that says that it has 2⁶⁰ elements, in chunks of one byte."""
    ckptfmt.save(path, {"w": np.zeros(16, np.int8)}, durable=False)

    def change(manifest: dict[str, Any]) -> None:
        manifest["tensors"]["shape"] = [[2**60]]

    rewrite_manifest(path, change)


def deep(path: Path) -> None:
    tree: Any = np.zeros(2)
    for _ in range(200):
        tree = {"d": tree}
    ckptfmt.save(path, tree, durable=False)


def wide(path: Path) -> None:
    ckptfmt.save(path, {f"a.{'b.' * 30}{i}": i for i in range(5000)}, durable=False)


def bomb(path: Path) -> None:
    ckptfmt.save(path, {"w": np.zeros((5000, 5000), np.float64)}, compression="zstd", durable=False)


def header_of_numbers(path: Path) -> None:
    """A GGUF with an array of 60 million numbers."""
    body = struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 0, 60_000_000)
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + body)
        file.truncate(file.tell() + 60_000_000)


def header_of_texts(path: Path) -> None:
    """A GGUF with three million texts of no letters."""
    body = struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 8, 3_000_000)
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + body)
        file.truncate(file.tell() + 24_000_000)


def safetensors_of_many(path: Path) -> None:
    header = json.dumps(
        {f"t{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(100_000)}
    ).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)


@pytest.mark.parametrize(
    "make", [many_axes, huge_shape, deep, wide, bomb, header_of_numbers, header_of_texts, safetensors_of_many]
)
def test_memory_is_bounded(looker: Looker, tmp_path: Path, make: Callable[[Path], None]) -> None:
    """It is opened or refused, in some seconds, and the page goes on."""
    path = tmp_path / "hostile.ckpt"
    make(path)
    looker.page.set_input_files("#files", str(path))
    shown = looker.tree.or_(looker.page.locator("main .problem p"))
    expect(shown.first).to_be_visible(timeout=30_000)
    if looker.tree.is_visible():
        looker.tree.focus()
        for key in ("Home", "ArrowRight", "ArrowRight", "Enter", "End", "Enter"):
            looker.tree.press(key)
        looker.page.wait_for_timeout(300)
        assert looker.rows.count() < 100
    assert memory(looker) < HEAP
