"""The page of `ckptfmt view` in Chromium: what people open, look at and find, with the numbers that NumPy has."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import chromium as chromium
from playwright.sync_api import Browser, expect
from safetensors.numpy import save_file
from viewing import Looker, Web, looking
from viewing import looker as looker

import ckptfmt
import ckptfmt.viewing
from benchmarks.viewer import sparse
from ckptfmt.format.dtypes import DTYPES

RNG = np.random.default_rng(3)
ROWS = 20  # of the table of numbers


def saved(path: Path, tree: Any, **options: Any) -> Path:
    ckptfmt.save(path, tree, durable=False, **options)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tree = {
        "model": {
            "wte": RNG.standard_normal((300, 40)).astype(np.float32),
            "layers": [{"q": RNG.standard_normal((16, 24)), "norm": np.ones(16, np.float16)} for _ in range(3)],
            "conv": RNG.standard_normal((6, 5, 4, 3)).astype(np.float32),
        },
        "optimizer": {"step": 1000, "betas": (0.9, 0.95), "name": "adamw"},
    }
    return saved(tmp_path / "model.ckpt", tree, metadata={"loss": 2.31, "tags": ["a", "b"]}, schema=("demo", "3"))


def as_numpy(cells: list[list[str]], dtype: Any) -> Any:
    """Cells as elements of a dtype, from their digits alone."""
    name = np.dtype(dtype).name
    kind: Any = {"bool": "True".__eq__}.get(name, int if "int" in name else complex if "complex" in name else float)
    found = [[kind(cell) for cell in row] for row in cells]
    return np.array(found, object if kind is int else None).astype(dtype)


# ---- opening


def test_a_file_that_is_dropped(looker: Looker, model: Path) -> None:
    looker.drop(model)
    looker.wait()
    expect(looker.page.get_by_role("heading", level=1)).to_have_text("model.ckpt")
    overview = looker.page.get_by_role("tabpanel")
    expect(overview).to_contain_text("ckptfmt 1.0")
    expect(overview).to_contain_text("demo, version 3")
    with ckptfmt.open(model) as checkpoint:
        expect(overview).to_contain_text(checkpoint.manifest_sha256)
    looker.visited.screenshot("viewer-overview")


@pytest.mark.parametrize("layout", ["packed", "loose"])
def test_a_folder_that_is_dropped(looker: Looker, tmp_path: Path, layout: Any) -> None:
    array = np.arange(12.0).reshape(3, 4)
    saved(tmp_path / "folder", {"w": array}, layout=layout)
    looker.drop(tmp_path / "folder")
    looker.wait()
    looker.look("w")
    assert np.array_equal(as_numpy(looker.numbers(), array.dtype), array)


def test_a_file_that_is_none(looker: Looker, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("nothing of the kind")
    looker.drop(tmp_path / "text.txt")
    expect(looker.page.get_by_role("alert").filter(has_text="not-a-checkpoint")).to_be_visible()
    (tmp_path / "cut.ckpt").write_bytes(saved(tmp_path / "whole.ckpt", {"w": np.ones(99)}).read_bytes()[:-400])
    looker.drop(tmp_path / "cut.ckpt")
    expect(looker.page.get_by_role("alert").filter(has_text="truncated")).to_be_visible()


def test_a_tree_of_one_tensor(looker: Looker, tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    looker.open(saved(tmp_path / "one.ckpt", array))
    looker.rows.first.click()
    looker.seen()
    assert np.array_equal(as_numpy(looker.numbers(), np.int16), array)


# ---- the tree


def test_the_tree_by_keyboard(looker: Looker, model: Path) -> None:
    looker.open(model)
    looker.tree.focus()

    def at() -> str:
        looker.page.wait_for_timeout(60)
        number = looker.tree.get_attribute("aria-activedescendant")
        return looker.page.locator(f"#{number} .name").inner_text()

    def press(*keys: str) -> str:
        for key in keys:
            looker.tree.press(key)
        return at()

    assert press("Home") == "model"
    assert press("ArrowRight", "ArrowRight") == "wte"
    assert press("ArrowDown") == "layers"
    assert press("ArrowRight", "ArrowDown", "ArrowRight", "ArrowDown") == "q"
    row = looker.page.locator(".row.current")
    assert [row.get_attribute(f"aria-{name}") for name in ("level", "setsize", "posinset")] == ["4", "2", "1"]
    assert press("Enter") == "q"
    looker.seen()
    assert press("ArrowLeft", "ArrowLeft", "ArrowLeft") == "layers"
    assert press("ArrowLeft", "ArrowLeft", "ArrowLeft") == "model"
    assert looker.page.locator(".row.current").get_attribute("aria-expanded") == "false"
    assert press("End") == "optimizer"
    assert press("m") == "model"
    looker.page.keyboard.press("/")
    assert looker.page.evaluate("document.activeElement.type") == "search"


def test_names_with_periods_stand_below_what_they_share(looker: Looker, tmp_path: Path) -> None:
    names = [f"model.layers.{i}.{part}" for i in range(12) for part in ("q.weight", "q.bias", "norm")]
    looker.open(saved(tmp_path / "flat.ckpt", {name: np.zeros(2) for name in [*names, "head"]}))
    expect(looker.rows).to_have_count(2)
    looker.tree.focus()
    looker.tree.press("Home")
    looker.tree.press("ArrowRight")
    expect(looker.rows).to_have_count(14)
    expect(looker.rows.first).to_contain_text("model.layers.")


def test_plain_values_and_metadata(looker: Looker, model: Path) -> None:
    looker.open(model)
    looker.rows.filter(has_text="optimizer").click()
    expect(looker.rows.filter(has_text="adamw")).to_be_visible()
    expect(looker.rows.filter(has_text="step")).to_contain_text("1000")
    metadata = looker.tab("Metadata")
    expect(metadata).to_contain_text("2.31")
    metadata.get_by_text("tags").click()
    expect(metadata).to_contain_text('"b"')


def test_records_of_migrations(looker: Looker, tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole.ckpt", {"w": np.zeros(3)})
    ckptfmt.repair(whole, tmp_path / "repaired.ckpt")
    looker.open(tmp_path / "repaired.ckpt")
    panel = looker.tab("Metadata")
    panel.locator("summary", has_text="0").click()
    expect(panel).to_contain_text('"repair"')


# ---- numbers

DTYPE_NAMES = [name for name, row in DTYPES.items() if row.numpy is not None]


def test_numbers_of_every_dtype(looker: Looker, tmp_path: Path) -> None:
    """Every bit pattern class: each cell has the digits of the very element."""
    tree = {}
    for name in DTYPE_NAMES:
        dtype = DTYPES[name].numpy
        raw = RNG.integers(0, 256, 6 * 8 * dtype.itemsize, np.uint8)
        with np.errstate(all="ignore"):
            tree[name] = (
                raw.view(dtype).reshape(6, 8)
                if DTYPES[name].per == 1 and name != "bool"
                else raw[:48].astype(dtype).reshape(6, 8)
            )
    looker.open(saved(tmp_path / "dtypes.ckpt", tree))
    for name, array in ckptfmt.load(tmp_path / "dtypes.ckpt").items():
        looker.look(name)
        found = as_numpy(looker.numbers(), array.dtype)
        with np.errstate(all="ignore"):
            same = (found == array) | ((found != found) & (array != array))
        assert np.all(same), (name, found, array)


def test_numbers_of_every_codec(looker: Looker, tmp_path: Path) -> None:
    """The policy of the page lets all decoders run."""
    array = np.arange(4000, dtype=np.int32).reshape(500, 8)
    ways = [("blosc", {"cname": name}) for name in ("blosclz", "lz4", "zlib", "zstd")]
    tree = {}
    rules = {}
    for number, (codec, options) in enumerate([("zstd", {}), ("gzip", {}), *ways]):
        tree[f"w{number}"] = array + number
        rules[f"w{number}"] = {"name": codec, **options}
    looker.open(saved(tmp_path / "model.ckpt", tree, compression=rules))
    for name, wanted in tree.items():
        looker.look(name)
        assert np.array_equal(as_numpy(looker.numbers(), np.int32)[:ROWS], wanted[:ROWS]), rules[name]


SLICES = [
    ("2, :, :, 1", (2, slice(None), slice(None), 1)),
    ("-1, 1:4, 0, ::2", (-1, slice(1, 4), 0, slice(None, None, 2))),
    (":, 3, 2, :", (slice(None), 3, 2, slice(None))),
    ("::3, 4, 1:, 2", (slice(None, None, 3), 4, slice(1, None), 2)),
    ("5, 4, 3", (5, 4, 3)),
]


def test_slices_along_any_axis(looker: Looker, model: Path) -> None:
    array = ckptfmt.load(model)["model"]["conv"]
    looker.open(model)
    looker.look("model/conv")
    for text, index in SLICES:
        looker.slice(text)
        wanted = np.atleast_2d(array[index])
        cells = [[cell for cell in row if cell] for row in looker.numbers()]
        assert np.array_equal(as_numpy(cells, np.float32), wanted), text
    looker.slice("0, :, 0, :")
    looker.page.get_by_label("What axis 1 does").select_option("columns")
    looker.seen()
    assert np.array_equal(as_numpy(looker.numbers(), np.float32), array[0, :, 0, :].T), "the axes are swapped"
    looker.page.get_by_label("Index of axis 2, as a number").fill("3")
    looker.page.get_by_label("Index of axis 2, as a number").press("Enter")
    looker.seen()
    assert np.array_equal(as_numpy(looker.numbers(), np.float32), array[0, :, 3, :].T)


@pytest.mark.parametrize("text", ["6", "1, 2, 3, 4, 5", "x", "1.5", "::0", "0, ::-1"])
def test_a_slice_that_is_none(looker: Looker, model: Path, text: str) -> None:
    looker.open(model)
    looker.look("model/conv")
    field = looker.page.get_by_label("Slice", exact=True)
    field.fill(text)
    field.press("Enter")
    expect(looker.page.locator("#index-problem")).not_to_be_empty()
    expect(field).to_have_attribute("aria-invalid", "true")


def test_moving_through_the_numbers(looker: Looker, model: Path) -> None:
    array = ckptfmt.load(model)["model"]["wte"]
    looker.open(model)
    looker.look("model/wte")
    width = len(looker.numbers()[0])
    looker.page.get_by_label("row ", exact=True).fill("100")
    looker.page.get_by_label("row ", exact=True).press("Enter")
    looker.page.get_by_role("button", name="Columns after").click()
    expect(looker.page.locator(".numbers [role=status]")).to_contain_text(f"rows 100 to 119 of 300, columns {width} to")
    assert np.array_equal(as_numpy(looker.numbers(), np.float32), array[100:120, width : 2 * width])
    looker.page.get_by_role("region", name="Table of numbers").press("PageDown")
    expect(looker.page.locator(".numbers [role=status]")).to_contain_text("rows 120 to 139")


def test_figures_are_those_of_numpy(looker: Looker, tmp_path: Path) -> None:
    array = RNG.standard_normal((70, 50)).astype(np.float32)
    array[3, 4], array[5, 6], array[7, 8], array[0, 0] = np.nan, np.inf, -np.inf, 0
    ints = RNG.integers(-(2**62), 2**62, (9, 9))
    looker.open(saved(tmp_path / "a.ckpt", {"w": array, "ints": ints}))
    looker.look("w")
    finite = array[np.isfinite(array)].astype(np.float64)
    figures = looker.figures()
    assert figures["elements"] == "3,500"
    assert (figures["NaN"], figures["infinite"], figures["zeros"]) == ("1", "2", "1")
    for name, value in (
        ("least", finite.min()),
        ("greatest", finite.max()),
        ("mean", finite.mean()),
        ("deviation", finite.std()),
    ):
        assert float(figures[name]) == pytest.approx(value, rel=1e-4), name
    looker.look("ints")
    assert (looker.figures()["least"], looker.figures()["greatest"]) == (str(ints.min()), str(ints.max()))


def test_the_heat_map(looker: Looker, tmp_path: Path) -> None:
    """Each pixel is the colour of its element; a pointer and the keys tell the element."""
    array = np.linspace(-1, 1, 63).reshape(7, 9)
    array[2, 3] = np.nan
    looker.open(saved(tmp_path / "a.ckpt", {"w": array}))
    looker.look("w")
    script = "canvas => [...canvas.getContext('2d').getImageData(0, 0, 9, 7).data, canvas.width, canvas.height]"
    *pixels, width, height = looker.page.locator(".frame canvas").evaluate(script)
    assert (width, height) == (9, 7)
    colours = np.array(pixels).reshape(7, 9, 4)
    assert (colours[..., 3] == 255).all()
    assert colours[0, 0].tolist()[:3] == [0x00, 0x12, 0x61]
    assert colours[6, 8].tolist()[:3] == [0x59, 0x00, 0x08]
    assert colours[2, 3].tolist()[:3] == [232, 62, 200]
    frame = looker.page.get_by_role("application", name="Heat map of the slice")
    frame.focus()
    for key in ("Home", "ArrowDown", "ArrowRight", "ArrowRight"):
        frame.press(key)
    expect(looker.page.locator(".readout").first).to_contain_text(f"[1, 2] = {array[1, 2]}")
    frame.press("Enter")
    expect(looker.page.locator("td.marked")).to_have_attribute("title", str(array[1, 2]))


def test_a_large_tensor_is_read_in_part(looker: Looker, tmp_path: Path) -> None:
    """Bands of it, which is said; numbers of any part are there."""
    path = tmp_path / "large.safetensors"
    rows, columns = 40_000, 1024  # 160 MiB, with holes
    header = f'{{"w":{{"dtype":"F32","shape":[{rows},{columns}],"data_offsets":[0,{4 * rows * columns}]}}}}'.encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 4 * rows * columns)
        file.seek(8 + len(header) + 4 * (columns * 39_990 + 5))
        file.write(np.float32(7).tobytes())
    looker.open(path)
    looker.look("w")
    assert re.search(r"Shown: [\d,]+ of 40,000 rows, in bands of [\d,]+ spread over all", looker.told)
    read = int(re.findall(r"[\d,]+", looker.told)[0].replace(",", ""))
    assert 4 * read * columns <= 64 * 2**20
    assert looker.figures()["elements"] == f"{read * columns:,}"
    looker.page.get_by_label("row ", exact=True).fill("39990")
    looker.page.get_by_label("row ", exact=True).press("Enter")
    expect(looker.page.locator(".numbers [role=status]")).to_contain_text("rows 39,980")
    assert looker.numbers()[10][5] == "7.0"


# ---- damage


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """One byte of one block of a tensor is another."""
    tree = {"good": np.arange(10.0), "w": RNG.standard_normal((3000, 512)).astype(np.float32)}  # of two blocks
    path = saved(tmp_path / "damaged.ckpt", tree)
    data = bytearray(path.read_bytes())
    data[data.find(tree["w"].tobytes()[:64]) + (4 << 20) + 100_000] ^= 1
    path.write_bytes(data)
    return path


def test_damage_is_shown_where_it_is(looker: Looker, damaged: Path) -> None:
    looker.open(damaged)
    looker.look("w")
    assert "Damaged, and not shown: rows 2,048 to 2,999." in looker.told
    expect(looker.page.locator(".status")).to_contain_text("1 block of 2 damaged; 1 checked and right")
    expect(looker.rows.first).to_contain_text("damaged")
    expect(looker.page.locator(".legend").first).to_contain_text("damaged")
    assert looker.figures()["elements"] == f"{2048 * 512:,}", "nothing of the block that is damaged"
    looker.page.get_by_label("row ", exact=True).fill("2500")
    looker.page.get_by_label("row ", exact=True).press("Enter")
    expect(looker.page.locator("td.damaged").first).to_be_visible()
    looker.visited.screenshot("viewer-damage")
    looker.look("good")
    assert looker.numbers()[0][3] == "3.0"


def test_verifying_finds_what_ckptfmt_finds(looker: Looker, damaged: Path) -> None:
    (fault,) = ckptfmt.verify(damaged).damage
    looker.open(damaged)
    panel = looker.tab("Damage")
    expect(panel).to_contain_text("Nothing damaged was met so far")
    panel.get_by_role("button", name="Verify every byte").click()
    expect(panel).to_contain_text("1 fault: all there are")
    cells = panel.locator("tbody tr").locator("th, td").all_inner_texts()
    assert cells[:5] == [fault.code, "w", "0", "1", f"{fault.offset:,}"]
    expect(looker.page.get_by_role("tab", name="Damage")).to_contain_text("1")
    panel.get_by_role("button", name="w", exact=True).click()
    looker.seen()
    looker.page.get_by_role("button", name="Verify this tensor").click()
    expect(looker.page.locator(".status")).to_contain_text("1 block of 2 damaged")


def test_a_whole_checkpoint_is_said_to_be_whole(looker: Looker, model: Path) -> None:
    looker.open(model)
    panel = looker.tab("Damage")
    panel.get_by_role("button", name="Verify every byte").click()
    expect(panel).to_contain_text("Whole: every byte is as its digest says.")
    looker.look("model/wte")
    expect(looker.page.locator(".status")).to_contain_text("every byte is as its xxh3-128 digest says")


# ---- two beside each other


def test_two_tensors_beside_each_other(looker: Looker, tmp_path: Path) -> None:
    one = RNG.standard_normal((30, 20)).astype(np.float32)
    two = one.copy()
    two[4, 5] += 2
    two[7, 8] -= 1
    first, second = saved(tmp_path / "1.ckpt", {"w": one}), saved(tmp_path / "2.ckpt", {"w": two, "v": one[:5]})
    looker.open(first)
    looker.look("w")
    looker.page.get_by_role("button", name="Pin to compare").click()
    looker.page.get_by_role("button", name="Open …").click()
    looker.open(second)
    looker.seen()
    comparison = looker.page.locator(".comparison")
    expect(comparison).to_contain_text("2 of 600 elements differ, by 2 at most.")
    expect(comparison).to_contain_text("1.ckpt: w[:, :]")
    looker.visited.screenshot("viewer-comparison")
    looker.look("v")
    expect(comparison).to_contain_text("The shapes differ: 30 × 20 and 5 × 20.")
    looker.page.get_by_role("button", name="End the comparison").click()
    expect(comparison).to_be_hidden()


# ---- URLs


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """2 GB of which nearly all is holes."""
    sparse(tmp_path / "large.ckpt")
    assert (tmp_path / "large.ckpt").stat().st_size > 1.9e9
    return tmp_path / "large.ckpt"


def test_a_url(chromium: Browser, model: Path) -> None:
    with Web(model) as web, looking(chromium, f"{web.url}/") as looker:
        looker.open_url(f"{web.url}/model.ckpt")
        looker.wait()
        looker.look("model/conv", "1, 1")
        assert len(web.requests) <= 5
        assert looker.visited.problems == []
    with Web(model) as web, looking(chromium) as looker:  # of another origin: the page is on the disk
        looker.open_url(f"{web.url}/model.ckpt")
        looker.wait()
        looker.look("model/conv", "1, 1")
        assert len(web.requests) <= 5
        assert set(looker.visited.outside()) == {f"{web.url}/model.ckpt"}


def test_a_url_behind_that_of_the_page(chromium: Browser, model: Path) -> None:
    with Web(model) as web, looking(chromium, f"{web.url}/#url={web.url}/model.ckpt") as looker:
        looker.wait()
        expect(looker.page.get_by_role("heading", level=1)).to_have_text("model.ckpt")


def test_two_gigabytes_in_five_requests(chromium: Browser, large: Path) -> None:
    with Web(large) as web, looking(chromium) as looker:
        looker.open_url(f"{web.url}/model.ckpt")
        looker.wait()
        looker.look("small")
        assert looker.numbers()[0][:3] == ["0.0", "1.0", "2.0"]
        assert len(web.requests) <= 5, web.requests
        spans = [re.fullmatch(r"bytes=(\d*)-(\d+)", asked or "") for method, asked in web.requests if method == "GET"]
        assert sum(int(found[2]) - int(found[1]) + 1 if found[1] else int(found[2]) for found in spans if found) < 2**20
        assert all(spans), "each asks for a part"


def test_a_server_without_ranges(chromium: Browser, model: Path, large: Path) -> None:
    with Web(model, ranges=False) as web, looking(chromium) as looker:
        looker.open_url(f"{web.url}/model.ckpt")  # a small file is read as a whole
        looker.wait()
    with Web(large, ranges=False) as web, looking(chromium) as looker:
        looker.open_url(f"{web.url}/model.ckpt")
        expect(looker.page.locator(".problem")).to_contain_text("no range requests")


def test_a_server_that_refuses_pages_of_others(chromium: Browser, model: Path) -> None:
    with Web(model, cors=False) as web, looking(chromium) as looker:
        looker.open_url(f"{web.url}/model.ckpt")
        expect(looker.page.locator(".problem")).to_contain_text("Access-Control-Allow-Origin")
        expect(looker.tree).to_have_count(0)


def test_nothing_at_a_url(chromium: Browser, model: Path) -> None:
    with Web(model) as web, looking(chromium) as looker:
        looker.open_url(f"{web.url}/other.ckpt")
        expect(looker.page.locator(".problem")).to_contain_text("not-found")


def test_a_file_that_changes_while_it_is_looked_at(chromium: Browser, tmp_path: Path) -> None:
    tree = {name: RNG.standard_normal((3000, 512)) for name in "ab"}
    path = saved(tmp_path / "a.ckpt", tree)
    with Web(path) as web, looking(chromium) as looker:
        looker.open_url(f"{web.url}/model.ckpt")
        looker.wait()
        looker.look("a")
        web.tag = '"2"'
        looker.choose("b")
        expect(looker.page.locator(".notice")).to_contain_text("The file has changed since it was opened")
        expect(looker.page.locator(".sight")).to_be_hidden()
        looker.page.get_by_role("button", name="Load it again").click()
        expect(looker.page.locator(".notice")).to_be_empty()
        looker.look("b")


def test_a_file_on_the_disk_that_changes(looker: Looker, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.ckpt", {name: RNG.standard_normal((600, 512)) for name in "ab"})
    looker.drop(path)
    looker.wait()
    looker.look("a")
    time.sleep(0.01)
    with path.open("r+b") as file:
        file.write(b"x")
    looker.choose("b")
    expect(looker.page.locator(".notice")).to_contain_text("The file has changed since it was opened")
    expect(looker.page.locator(".sight")).to_be_hidden()


# ---- runs, by the server of the command


def test_a_run(chromium: Browser, tmp_path: Path) -> None:
    with ckptfmt.CheckpointManager(tmp_path / "run") as manager:
        for step in (1, 2, 3):
            manager.save(step, {"w": np.full((4, 4), step, np.float32)}, metrics={"loss": 1 / step})
    save_file({"w": np.full((4, 4), 9, np.float32)}, tmp_path / "run" / "last.safetensors")
    np.savez(tmp_path / "run" / "other.npz", w=np.zeros(3))
    with ckptfmt.viewing.view(tmp_path / "run") as view, looking(chromium, view.url) as looker:
        looker.wait()
        expect(looker.page.get_by_role("heading", level=1)).to_have_text("step-0000000003.ckpt")
        steps = looker.tab("Run")
        expect(steps.locator("tbody tr")).to_have_count(5)
        expect(steps).to_contain_text("ckptfmt convert")
        expect(steps.get_by_role("img")).to_have_count(1)
        looker.visited.screenshot("viewer-run")
        steps.get_by_role("button", name="step-0000000001.ckpt").click()
        looker.look("w")
        assert looker.numbers()[0][0] == "1.0"
        looker.page.get_by_role("button", name="Pin to compare").click()
        looker.page.get_by_role("button", name="The next checkpoint").click()
        expect(looker.page.locator(".comparison")).to_contain_text("16 of 16 elements differ, by 1 at most.")
        looker.page.get_by_label("Checkpoint of this folder").select_option(label="last.safetensors")
        expect(looker.page.locator(".comparison")).to_contain_text("by 8 at most")
        assert looker.visited.problems == []
        assert all(url.startswith(view.url) for url in looker.visited.outside())


@pytest.mark.parametrize("layout", ["file", "packed", "loose"])
def test_one_checkpoint_that_is_served(chromium: Browser, tmp_path: Path, layout: Any) -> None:
    path = saved(tmp_path / "model.ckpt", {"w": np.arange(6.0)}, layout=layout)
    with ckptfmt.viewing.view(path) as view, looking(chromium, view.url) as looker:
        looker.wait()
        looker.look("w")
        assert [cell for cell in looker.numbers()[0] if cell] == ["0.0", "1.0", "2.0", "3.0", "4.0", "5.0"]
        ckptfmt.save(path, {"w": np.arange(7.0)}, layout=layout, overwrite=True, durable=False)
        assert looker.visited.problems == []


def test_a_damaged_one_that_is_served(chromium: Browser, tmp_path: Path) -> None:
    path = saved(tmp_path / "model.ckpt", {"w": np.arange(6.0)})
    path.write_bytes(path.read_bytes()[:-9])
    with ckptfmt.viewing.view(path) as view, looking(chromium, view.url) as looker:
        expect(looker.page.locator(".problem")).to_contain_text("bad-record")


# ---- for everybody


@pytest.mark.parametrize(("dark", "width"), [(False, 1280), (True, 400)], ids=["light", "dark"])
def test_axe_finds_nothing(chromium: Browser, damaged: Path, model: Path, dark: bool, width: int) -> None:
    name = f"{'dark' if dark else 'light'}-{width}"
    with looking(chromium, dark=dark, width=width) as looker:

        def check(view: str) -> None:
            looker.page.wait_for_timeout(80)
            looker.visited.screenshot(f"viewer-{view}-{name}", full=width < 800)
            assert looker.visited.axe() == [], view
            assert looker.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), view

        check("start")
        looker.open(damaged)
        check("first")
        looker.look("w")
        check("damaged")
        looker.tab("Damage").get_by_role("button", name="Verify every byte").click()
        expect(looker.page.get_by_role("tabpanel")).to_contain_text("all there are")
        check("faults")
        looker.page.get_by_role("button", name="Open …").click()
        looker.open(model)
        looker.tab("Metadata")
        check("metadata")
        looker.look("model/conv", "1, 2")
        looker.page.get_by_role("button", name="Pin to compare").click()
        looker.slice("3, 2")
        expect(looker.page.locator(".comparison .sides")).to_be_visible()
        check("comparison")
        looker.page.get_by_label("Search tensors").fill("no such tensor")
        expect(looker.page.locator(".found-count")).to_contain_text("0 of")
        check("nothing-found")
        assert looker.visited.problems == []


def test_all_of_it_by_keyboard(chromium: Browser, model: Path) -> None:
    """From the file to a number, without a pointer; what has the focus can be seen."""
    with looking(chromium) as looker:
        keyboard = looker.page.keyboard
        with looker.page.expect_file_chooser() as chooser:  # it takes a while until the browser tells of one
            for _ in range(100):  # and keys are dropped until the first frame is shown
                if looker.page.evaluate("document.activeElement !== document.body"):
                    break
                keyboard.press("Tab")
            expect(looker.page.get_by_role("button", name="Choose a file")).to_be_focused()
            keyboard.press("Enter")
        chooser.value.set_files(str(model))
        looker.wait()
        keyboard.press("/")
        keyboard.type("wte")
        expect(looker.page.locator(".found-count")).to_contain_text("1 of")
        keyboard.press("ArrowDown")
        keyboard.press("Enter")
        looker.seen()
        for _ in range(20):
            keyboard.press("Tab")
            focused = looker.page.evaluate(
                "[document.activeElement.tagName, getComputedStyle(document.activeElement).outlineStyle]"
            )
            assert focused[1] != "none" or focused[0] == "BODY", focused
            if looker.page.evaluate("document.activeElement.getAttribute('aria-label')") == "Table of numbers":
                break
        else:
            pytest.fail("the numbers are not reached")
        looker.page.get_by_role("tab", name="Tensor").focus()
        keyboard.press("ArrowRight")
        expect(looker.page.get_by_role("tab", name="Overview")).to_be_focused()
        keyboard.press("End")
        expect(looker.page.get_by_role("tab", name="Damage")).to_be_focused()


# ---- very many tensors


def test_a_hundred_thousand_tensors(looker: Looker, tmp_path: Path) -> None:
    """Only the rows in sight are elements of the page; any is found. `python -m benchmarks.viewer` measures it."""
    tree = {f"t{i:06}": np.full(2, i, np.int32) for i in range(100_000)}
    looker.open(saved(tmp_path / "many.ckpt", tree))
    assert looker.rows.count() < 80
    looker.tree.focus()
    looker.tree.press("End")
    expect(looker.rows.last).to_contain_text("t099999")
    assert looker.rows.count() < 80
    looker.look("t054321")
    assert looker.numbers()[0][:2] == ["54321", "54321"]
