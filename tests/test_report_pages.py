"""Pages in a browser, light and dark, wide and narrow: nothing goes wrong in them, nothing is asked for outside, axe
finds nothing, all works by the keyboard, and no script comes out of a name. Pictures are in build/screenshots."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from browser import Visited, chromium, visit
from damage import flipped, zones

import ckptfmt
from ckptfmt.manager import Best, CheckpointManager, Every, Last, LogTo

__all__ = ["chromium"]
KINDS = ("checkpoint", "comparison", "run")
HOSTILE = "<img src=x onerror='window.hit=1'></script><script>window.hit=1</script>"


def tree(seed: int, layers: int = 8) -> dict[str, Any]:
    rng = np.random.default_rng(seed)

    def random(*shape: int, dtype: Any = ml_dtypes.bfloat16) -> Any:
        return rng.normal(0, 0.02, shape).astype(dtype)

    model = {"embed.weight": random(500, 64)}
    for i in range(layers):
        model |= {f"layers.{i}.attn.{kind}.weight": random(64, 64) for kind in "qkvo"}
        model |= {f"layers.{i}.mlp.{e}.up": random(128, 64, dtype=ml_dtypes.float8_e4m3fn) for e in range(2)}
        model[f"layers.{i}.norm"] = np.ones(64, np.float32)
    model["layers.2.attn.v.weight"][1, 2] = np.nan
    return {"model": model, HOSTILE: {"w": np.ones((3, 3)), "x" * 5000: np.ones(2), "\u202edlrow": np.ones(2)},
            "optimizer": {"state": {i: {"exp_avg": random(64, 64, dtype=np.float32)} for i in range(12)}}}  # fmt: skip


def checkpoint(folder: Path) -> ckptfmt.HtmlReport:
    path = folder / "a.ckpt"
    ckptfmt.save(path, tree(0), metadata={"loss": 2.3, HOSTILE: HOSTILE}, durable=False)
    zone = next(zone for zone in zones(path) if zone.where == "block" and zone.tensor == ("model", "embed.weight"))
    with flipped(zone.file, zone.start, 0):
        return ckptfmt.report(path, spectrum="**.attn.q.weight")


def comparison(folder: Path) -> ckptfmt.HtmlReport:
    after, rng = tree(0), np.random.default_rng(1)
    for i in range(8):
        name = f"layers.{i}.attn.q.weight"
        after["model"][name] = (after["model"][name].astype(np.float32) * (1 + 0.01 * i)).astype(ml_dtypes.bfloat16)
    after["model"]["layers.3.norm"] = np.ones(65, np.float32)
    after["model"]["head"] = after["model"].pop("embed.weight")
    after[HOSTILE]["w"][0] = rng.random(3)
    after["new"], after["optimizer"]["state"][0] = np.ones(5), {}
    ckptfmt.save(folder / "b.ckpt", tree(0), metadata={"loss": 2.3}, durable=False)
    ckptfmt.save(folder / "c.ckpt", after, metadata={"loss": 1.3, HOSTILE: 1}, durable=False)
    return ckptfmt.report(folder / "b.ckpt", folder / "c.ckpt")


def run(folder: Path) -> ckptfmt.HtmlReport:
    place, rng = folder / "runs" / "7", np.random.default_rng(2)
    keep, log = [Last(3), Best("loss", 2), Every(500)], LogTo(place / "history.jsonl")
    with CheckpointManager(place, keep=keep, durable=False, on_commit=log) as manager:
        for step in range(0, 2000, 50):
            metrics = {"loss": 3 * np.exp(-step / 700) + 0.1 * rng.random(), HOSTILE: float(step % 7)}
            manager.save(step, {"w": np.ones((16, 16 + step // 50))}, metrics=metrics)
    damaged = place / "step-0000000500.ckpt"
    os.truncate(damaged, damaged.stat().st_size - 40)
    (place / "step-0000000600.ckpt").write_text(HOSTILE)
    return ckptfmt.report(place)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The URL of a page of each kind."""
    folder, urls = tmp_path_factory.mktemp("pages"), {}
    for name, make in zip(KINDS, (checkpoint, comparison, run), strict=True):
        make(folder).save(folder / f"{name}.html")
        urls[name] = (folder / f"{name}.html").as_uri()
    return urls


@pytest.fixture
def shown(chromium: Any, pages: dict[str, str]) -> Iterator[Visited]:
    """The page of a checkpoint, wide and light."""
    with visit(chromium, pages["checkpoint"]) as visited:
        yield visited
        assert (visited.problems, visited.outside()) == ([], [])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dark", "width"), [(False, 1280), (True, 390)], ids=["light", "dark"])
def test_every_page(chromium: Any, pages: dict[str, str], kind: str, dark: bool, width: int) -> None:
    with visit(chromium, pages[kind], dark=dark, width=width) as visited:
        visited.page.wait_for_selector("svg")
        name = f"report-{kind}-{'dark' if dark else 'light'}-{'wide' if width > 500 else 'narrow'}"
        visited.screenshot(name)
        assert visited.page.evaluate("window.hit") is None
        assert visited.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "only tables are scrolled"
        assert visited.axe() == []
        assert (visited.problems, visited.outside()) == ([], [])


def test_a_script_of_another_is_not_run(chromium: Any, pages: dict[str, str]) -> None:
    with visit(chromium, pages["checkpoint"]) as visited:
        visited.page.evaluate(
            "document.body.append(Object.assign(document.createElement('script'), {text: 'window.hit = 1'}))"
        )
        visited.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hit = 1\">')")
        visited.page.wait_for_timeout(200)
        assert visited.page.evaluate("window.hit") is None
        assert len(visited.problems) >= 2


def focused(visited: Visited) -> str:
    return str(
        visited.page.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent")
    )


def test_the_tree_map_by_the_keyboard(shown: Visited) -> None:
    page = shown.page
    page.locator(".map button[tabindex='0']").focus()
    assert focused(shown).startswith("model: ")
    page.keyboard.press("ArrowRight")
    second = focused(shown)
    page.keyboard.press("ArrowLeft")
    assert focused(shown).startswith("model: ")
    assert second != focused(shown)
    page.keyboard.press("Enter")
    assert page.locator(".crumbs button").all_text_contents() == ["everything", "model"]
    page.keyboard.press("Escape")
    assert page.locator(".crumbs button").all_text_contents() == ["everything"]
    assert shown.axe() == []


def test_one_tensor_by_the_keyboard(shown: Visited) -> None:
    page = shown.page
    search = page.locator("section[aria-labelledby=tensors] input")
    search.fill("layers.2.attn.v")
    rows = page.locator("section[aria-labelledby=tensors] tbody tr")
    assert rows.count() == 1
    rows.get_by_role("button").focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    assert dialog.get_by_role("heading").text_content() == "model/layers.2.attn.v.weight"
    assert dialog.get_by_role("img").count() == 1
    shown.screenshot("report-tensor", full=False)
    assert shown.axe() == []
    page.keyboard.press("Escape")
    assert page.locator("dialog").count() == 0
    assert focused(shown) == "model/layers.2.attn.v.weight"


def test_a_table_is_sorted_and_turned_by_the_keyboard(shown: Visited) -> None:
    page = shown.page
    whole = page.locator("section[aria-labelledby=tensors]")
    heading = whole.get_by_role("columnheader", name="std")
    heading.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    place = next(
        i for i, name in enumerate(whole.locator("thead button").all_text_contents()) if name.startswith("std")
    )
    values = [float(text) for text in whole.locator(f"tbody td:nth-child({place + 1})").all_text_contents()]
    assert values == sorted(values, reverse=True)
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    first = whole.get_by_role("status").text_content()
    whole.get_by_role("button", name="Next").focus()
    page.keyboard.press("Enter")
    assert whole.get_by_role("status").text_content() != first


def test_what_a_drawing_shows_is_chosen(shown: Visited) -> None:
    page = shown.page
    drawing = page.locator("section[aria-labelledby=layers] figure").first
    assert "root mean square" in (drawing.locator("svg[role=img]").get_attribute("aria-label") or "")
    page.get_by_label("Show").select_option("share of zeros")
    assert "share of zeros" in (drawing.locator("svg[role=img]").get_attribute("aria-label") or "")
    page.get_by_label("Stack").select_option(index=1)
    assert "optimizer.state" in (drawing.locator("svg[role=img]").get_attribute("aria-label") or "")
    drawing.locator("summary").focus()
    page.keyboard.press("Enter")
    drawing.get_by_role("row").nth(12).wait_for()
    assert shown.axe() == []


def test_colours_are_chosen(shown: Visited) -> None:
    page = shown.page
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_label("Colours").select_option("dark")
    assert page.evaluate(ground) != light
    assert shown.axe() == []


def test_names_are_text(shown: Visited) -> None:
    body = shown.page.locator("body").inner_text()
    assert HOSTILE in body
    shown.page.locator("section[aria-labelledby=tensors] input").fill("dlrow")
    body = shown.page.locator("body").inner_text()
    assert "\\u202edlrow" in body
    assert "\u202e" not in body


def test_every_control_is_reached_by_the_tab_key(shown: Visited) -> None:
    page = shown.page
    wanted = {"SELECT", "A", "BUTTON", "INPUT", "SUMMARY"}
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.tagName"))
    assert wanted <= reached
