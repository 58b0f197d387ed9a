"""The page of `ckptfmt view` as a person uses it, and web servers that it meets: good and bad ones."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Visited, visit
from playwright.sync_api import Browser, Locator, expect

import ckptfmt.viewing
from ckptfmt.viewing.page import page as page_bytes


class Looker:
    """Somebody who looks at checkpoints with the page."""

    def __init__(self, visited: Visited) -> None:
        self.visited, self.page = visited, visited.page

    def open(self, *paths: Path) -> None:
        self.page.set_input_files("#files", [str(path) for path in paths])
        self.wait()

    def open_url(self, url: str) -> None:
        self.page.get_by_label("or give its URL").fill(url)
        self.page.get_by_role("button", name="Open", exact=True).click()

    def drop(self, *paths: Path) -> None:
        """Files from the desktop, as the system hands them over."""
        session = self.page.context.new_cdp_session(self.page)
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            session.send("Input.dispatchDragEvent", {"type": kind, "x": 400, "y": 300, "data": data})

    def wait(self) -> None:
        self.tree.wait_for()
        expect(self.rows.first).to_be_visible()

    @property
    def tree(self) -> Locator:
        return self.page.get_by_role("tree")

    @property
    def rows(self) -> Locator:
        return self.page.get_by_role("treeitem")

    @property
    def told(self) -> str:
        """What is said of the slice, and above all."""
        return self.page.locator(".told").inner_text() + self.page.locator(".notice").inner_text()

    def tab(self, name: str) -> Locator:
        self.page.get_by_role("tab", name=name).click()
        return self.page.get_by_role("tabpanel")

    def look(self, label: str, index: str | None = None) -> None:
        """Find a tensor, and a slice of it."""
        self.choose(label)
        expect(self.page.locator("h2.path")).to_have_text(label)
        if index is not None:
            self.slice(index)
        self.seen()

    def choose(self, label: str) -> None:
        self.page.get_by_label("Search tensors").fill(label)
        expect(self.tree).to_have_attribute("aria-busy", "false")
        self.rows.filter(has=self.page.get_by_text(label, exact=True)).first.click()

    def slice(self, index: str) -> None:
        field = self.page.get_by_label("Slice", exact=True)
        field.fill(index)
        field.press("Enter")
        self.seen()

    def seen(self) -> None:
        self.page.locator(".sight:not([hidden])").wait_for()
        expect(self.page.locator(".told")).not_to_contain_text("Reading")

    def numbers(self) -> list[list[str]]:
        """The cells of the table, each in full."""
        script = "rows => rows.map(row => [...row.querySelectorAll('td')].map(cell => cell.title || cell.textContent))"
        found: list[list[str]] = self.page.locator(".numbers tbody tr").evaluate_all(script)
        return found

    def figures(self) -> dict[str, str]:
        script = "rows => rows.map(row => [...row.children].map(one => one.textContent))"
        return dict(self.page.locator(".figures .facts > div").evaluate_all(script))


@contextlib.contextmanager
def looking(browser: Browser, url: str | None = None, **options: Any) -> Iterator[Looker]:
    """The page, opened from the disk unless at a URL; nothing goes wrong in it."""
    place = Path(ckptfmt.viewing.__file__).with_name("page.html")
    with visit(browser, url or place.as_uri(), **options) as visited:
        yield Looker(visited)


@contextlib.contextmanager
def looking_alone(browser: Browser) -> Iterator[Looker]:
    """The page from the disk: it has asked nobody for anything, and nothing has gone wrong in it."""
    with looking(browser) as looker:
        yield looker
        assert looker.visited.problems == []
        assert looker.visited.outside() == []


@pytest.fixture
def looker(chromium: Browser) -> Iterator[Looker]:
    with looking_alone(chromium) as looker:
        yield looker


class Web:
    """A web server with one file, at `/model.ckpt`, and the page, at `/`; `served` changes how it answers."""

    def __init__(self, data: bytes | Path, *, ranges: bool = True, cors: bool = True) -> None:
        self.data, self.ranges, self.cors = data, ranges, cors
        self.requests: list[tuple[str, str | None]] = []
        self.tag = '"1"'
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a browser that goes away is none
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self) -> Web:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def size(self) -> int:
        return self.data.stat().st_size if isinstance(self.data, Path) else len(self.data)

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        if not isinstance(self.data, Path):
            yield self.data[start:stop]
            return
        with self.data.open("rb") as file:
            file.seek(start)
            for at in range(start, stop, 1 << 20):
                yield file.read(min(1 << 20, stop - at))

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.path == "/":
                    self._send(200, {"Content-Type": "text/html"}, [page_bytes()], len(page_bytes()))
                elif self.path.partition("?")[0] != "/model.ckpt":
                    self._send(404, {}, [], 0)
                else:
                    self._answer()

            do_HEAD: Callable[[], None] = do_GET  # noqa: N815

            def do_OPTIONS(self) -> None:
                allowed = {"Access-Control-Allow-Headers": "range", "Access-Control-Allow-Methods": "GET, HEAD"}
                self._send(204, allowed if web.cors else {}, [], 0)

            def _answer(self) -> None:
                asked = self.headers.get("Range")
                web.requests.append((self.command, asked))
                about = {"ETag": web.tag, "Access-Control-Expose-Headers": "Content-Range, ETag"}
                if asked is None or not web.ranges:
                    self._send(200, about, web.read(0, web.size), web.size)
                    return
                first, _, last = asked.removeprefix("bytes=").partition("-")
                start = int(first) if first else max(0, web.size - int(last))
                stop = min(web.size, int(last) + 1) if first and last else web.size
                about["Content-Range"] = f"bytes {start}-{stop - 1}/{web.size}"
                self._send(206, about, web.read(start, stop), stop - start)

            def _send(self, status: int, headers: dict[str, str], body: Iterable[bytes], length: int) -> None:
                self.send_response(status)
                if web.cors:
                    headers["Access-Control-Allow-Origin"] = "*"
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                if self.command != "HEAD":
                    with contextlib.suppress(OSError):
                        for piece in body:
                            self.wfile.write(piece)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        return Handler
