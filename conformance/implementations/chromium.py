"""The package of js/ in a headless browser: a page of it answers the requests, and reads every input by its URL.

Needs Chromium, the package playwright, and what `make js` builds.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, unquote, urlsplit

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[2]
MODULES = ROOT / "js" / "node_modules"
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
PAGE = "/a-page"
TYPES = {".js": "text/javascript", ".mjs": "text/javascript"}
IMPORTS = {
    "hash-wasm": MODULES / "hash-wasm" / "dist" / "index.esm.js",
    "pako": MODULES / "pako" / "dist" / "pako.mjs",
    "zstddec": MODULES / "zstddec" / "dist" / "zstddec.mjs",
    "#disk": ROOT / "js" / "dist" / "no_disk.js",
}
MODULE = f"""
import {{ open }} from '{ROOT / "js" / "dist" / "index.js"}';
import {{ answering, json }} from '{ROOT / "conformance" / "implementations" / "javascript" / "protocol.js"}';
const answer = answering('ckptfmt-chromium', (file, bases) => open(new URL(file, location.href), {{
  base: bases?.map((base) => new URL(base, location.href)),
}}));
window.answer = async (line) => json(await answer(JSON.parse(line)));
"""
HTML = (
    '<!doctype html><meta charset="utf-8"><title>ckptfmt</title><link rel="icon" href="data:,">'
    f'<script type="importmap">{json.dumps({"imports": {key: str(path) for key, path in IMPORTS.items()}})}</script>'
    f'<script type="module">{MODULE}</script>'
)


class FilesByUrl(BaseHTTPRequestHandler):
    """Every file of the machine by its path, and ranges of it; links within a checkpoint are forbidden."""

    protocol_version = "HTTP/1.1"
    untold: ClassVar[list[str]] = []  # links and pipes that were asked for: a URL does not tell what they are

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = Path(unquote(urlsplit(self.path).path))
        if str(path) == PAGE:
            return self.reply(HTTPStatus.OK, HTML.encode(), "text/html; charset=utf-8")
        try:
            status = path.lstat()
        except (OSError, ValueError):
            return self.reply(HTTPStatus.NOT_FOUND)
        if any(one.is_symlink() for one in (path, *list(path.parents)[:3])):
            self.untold.append(str(path))
            return self.reply(HTTPStatus.FORBIDDEN)
        if stat.S_ISDIR(status.st_mode):
            return self.list()
        if not stat.S_ISREG(status.st_mode):
            self.untold.append(str(path))
            return self.reply(HTTPStatus.NOT_FOUND)
        with path.open("rb") as file:
            return self.send_part(file, status.st_size, TYPES.get(path.suffix, "application/octet-stream"))

    def list(self) -> None:
        """As web servers do: lead to the directory's own URL, where its list is."""
        if self.path.endswith("/"):
            return self.reply(HTTPStatus.OK, b"<!doctype html><title>A list</title>", "text/html; charset=utf-8")
        self.send_response(HTTPStatus.MOVED_PERMANENTLY)
        self.send_header("Location", f"{self.path}/")
        self.send_header("Content-Length", "0")
        return self.end_headers()

    def send_part(self, file: Any, size: int, kind: str) -> None:
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            return self.reply(HTTPStatus.OK, file.read(), kind)
        first, last = asked.groups()
        start = int(first) if first else max(0, size - int(last))
        stop = min(size, int(last) + 1) if first and last else size
        if start >= stop:
            return self.reply(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, b"", kind, f"bytes */{size}")
        file.seek(start)
        return self.reply(HTTPStatus.PARTIAL_CONTENT, file.read(stop - start), kind, f"bytes {start}-{stop - 1}/{size}")

    def reply(self, status: HTTPStatus, data: bytes = b"", kind: str = "text/plain", part: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if part is not None:
            self.send_header("Content-Range", part)
        self.send_header("Cache-Control", "no-store" if part is not None or status != HTTPStatus.OK else "max-age=60")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def page_of_reader() -> Iterator[tuple[Any, str]]:
    """A page that answers requests, and where files are for it."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        sys.exit("Chromium is not installed")
    server = ThreadingHTTPServer(("127.0.0.1", 0), FilesByUrl)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    place = f"http://127.0.0.1:{server.server_address[1]}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        try:
            page = browser.new_page()
            page.on("pageerror", lambda error: print(error, file=sys.stderr))
            page.goto(place + PAGE)
            page.wait_for_function("'answer' in window", timeout=20_000)
            yield page, place
        finally:
            browser.close()
            server.shutdown()
            server.server_close()


def main() -> None:
    with page_of_reader() as (page, place):

        def url_of(path: str) -> str:
            return place + quote(os.path.abspath(path))

        for line in sys.stdin:
            request = json.loads(line)
            if request["op"] == "bye":
                return
            if "file" in request:
                request["file"] = url_of(request["file"])
            if "bases" in request:
                request["bases"] = list(map(url_of, request["bases"]))
            FilesByUrl.untold.clear()
            reply = page.evaluate("(line) => window.answer(line)", json.dumps(request))
            if FilesByUrl.untold:
                reply = json.dumps({"id": request["id"], "skipped": "a URL does not tell what a link or a pipe is"})
            print(reply, flush=True)


if __name__ == "__main__":
    main()
