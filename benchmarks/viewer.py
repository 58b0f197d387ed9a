"""`python -m benchmarks.viewer`: the page of `ckptfmt view` in Chromium: the first rows of 100,000 tensors, scrolling
through them, memory, and the requests for a file of 2 GB behind a URL.

Each figure is the median of some rounds, each in a page of its own; least and greatest stand behind it. Needs
Playwright and Chromium.
"""

from __future__ import annotations

import http.server
import re
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np

import ckptfmt
import ckptfmt.viewing
from ckptfmt.storage import disk

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--enable-precise-memory-info"]  # fmt: skip
MIB = 1 << 20
SIDE = 22_000  # of a square of float32 that has 2 GB

# the longest time between two frames while the tree is scrolled from its beginning to its end, in steps of a page
SCROLL = """async tree => {
  const frame = () => new Promise(done => requestAnimationFrame(done));
  let [longest, last] = [0, await frame()];
  const step = tree.scrollHeight / 120;
  for (let i = 0; i < 120; i++) {
    tree.scrollTop += step;
    const now = await frame();
    [longest, last] = [Math.max(longest, now - last), now];
  }
  return longest;
}"""


class HoleyDisk(disk.Disk):
    """A disk that leaves holes where zeros are written."""

    def write(self, fd: int, data: memoryview, offset: int) -> int:
        return len(data) if bytes(data) == bytes(len(data)) else super().write(fd, data, offset)

    def allocate(self, fd: int, size: int) -> None:
        """Nothing: holes are what is wanted."""


def sparse(path: Path) -> None:
    """Save a checkpoint of 2 GB, nearly all of it holes."""
    before = disk.use(HoleyDisk())
    try:
        ckptfmt.save(path, {"large": np.zeros((SIDE, SIDE), np.float32), "small": np.arange(10.0)}, durable=False)
    finally:
        disk.use(before)


class _Ranges(http.server.BaseHTTPRequestHandler):
    """Serves ranges of one file to any page, and writes down what was asked for."""

    protocol_version = "HTTP/1.1"
    path_served: Path
    asked: list[str]

    def do_GET(self) -> None:
        size = self.path_served.stat().st_size
        found = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        self.asked.append(f"{self.command} {self.headers.get('Range', 'all of it')}")
        first, stop = 0, size
        if found:
            first = int(found[1]) if found[1] else size - int(found[2])
            stop = int(found[2]) + 1 if found[1] and found[2] else size
        self.send_response(206 if found else 200)
        headers = {"Content-Range": f"bytes {first}-{stop - 1}/{size}", "Access-Control-Allow-Origin": "*"}
        headers |= {"Content-Length": str(stop - first), "Access-Control-Expose-Headers": "Content-Range"}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            with self.path_served.open("rb") as file:
                file.seek(first)
                self.wfile.write(file.read(stop - first))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_OPTIONS(self) -> None:
        self.send_response(204)
        for name in ("Origin", "Headers", "Methods"):
            self.send_header(f"Access-Control-Allow-{name}", "range" if name == "Headers" else "*")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def served(path: Path) -> Iterator[tuple[str, list[str]]]:
    """A URL of a file, and the requests for it."""
    asked: list[str] = []
    handler = type("Ranges", (_Ranges,), {"path_served": path, "asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/model.ckpt", asked
        server.shutdown()


def heap(page: Any) -> float:
    """MiB of JavaScript, array buffers and elements that a page holds."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    usage = session.send("Runtime.getHeapUsage")
    total: float = usage["usedSize"] + usage.get("backingStorageSize", 0) + usage.get("embedderHeapUsedSize", 0)
    return total / MIB


def renderers() -> float:
    """MiB of memory that belongs to the largest of the browser's processes of pages alone."""
    most = 0
    for status in Path("/proc").glob("[0-9]*/smaps_rollup"):
        try:
            if "--type=renderer" in (status.parent / "cmdline").read_text():
                lines = status.read_text().splitlines()
                most = max(most, sum(int(line.split()[1]) for line in lines if line.startswith("Private_")))
        except OSError:  # of another user, or gone
            continue
    return most / 1024


def first_rows(page: Any, path: Path) -> dict[str, float]:
    """Open a file, and wait for the first rows; then scroll, and search."""
    begin = time.perf_counter()
    page.set_input_files("#files", str(path))
    page.get_by_role("treeitem").filter(has_not_text="…").first.wait_for()
    found = {"first rows, ms": 1000 * (time.perf_counter() - begin)}
    found["heap then, MiB"] = heap(page)
    found["longest frame of scrolling, ms"] = page.get_by_role("tree").evaluate(SCROLL)
    begin = time.perf_counter()
    page.get_by_label("Search tensors").fill("99999")
    page.get_by_text("1 of 100,000").wait_for()
    found["search, ms"] = 1000 * (time.perf_counter() - begin)
    found["heap after it, MiB"] = heap(page)
    found["process, MiB"] = renderers()
    return found


def told(name: str, rounds: list[dict[str, float]]) -> None:
    for key in rounds[0]:
        values = [one[key] for one in rounds]
        click.echo(f"{name:<22} {key:<32} {statistics.median(values):8.1f}  ({min(values):.1f}–{max(values):.1f})")


@click.command()
@click.option("--rounds", default=5, show_default=True)
def main(*, rounds: int) -> None:
    """Measure the page of `ckptfmt view`."""
    from playwright.sync_api import sync_playwright

    place = Path(ckptfmt.viewing.__file__).with_name("page.html").as_uri()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=".") as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)

        def opened() -> Any:
            page = browser.new_page()
            page.goto(place)
            return page

        path = Path(folder) / "many.ckpt"
        ckptfmt.save(path, {f"t{i:05}": np.zeros(4, np.float32) for i in range(100_000)}, durable=False)
        found = []
        for _ in range(rounds):
            page = opened()
            found.append(first_rows(page, path))
            page.close()
        told("100,000 tensors", found)
        large = Path(folder) / "large.ckpt"
        sparse(large)
        with served(large) as (url, asked):
            page = opened()
            page.get_by_label("or give its URL").fill(url)
            page.get_by_role("button", name="Open", exact=True).click()
            page.get_by_role("treeitem").filter(has_text="small").click()
            page.locator(".sight:not([hidden])").wait_for()
            size = large.stat().st_size / 1e9
            click.echo(f"{size:.2f} GB behind a URL, opened, and one tensor seen: {len(asked)} requests: {asked}")
        browser.close()


if __name__ == "__main__":
    main()
