"""The server of `ckptfmt view`: on this machine alone, for whoever has its URL, and read-only."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .._version import __version__
from ..errors import CkptError, os_fault
from .places import places_at
from .replies import HEADERS, Replies, Reply

ADDRESS = "127.0.0.1"
WAIT = 60  # seconds without a request after which a connection is closed


class View:
    """A page that shows what is at a path, for as long as this is open; made by `view`."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        port: int = 0,
        follow_links: bool = False,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        places = places_at(path, follow_links=follow_links, storage_options=storage_options)
        try:
            self._server = _Server((ADDRESS, port), _Handler)
        except OSError as error:
            raise os_fault(error, f"cannot listen at {ADDRESS}:{port}", None) from error
        token, port = secrets.token_urlsafe(24), self._server.server_address[1]
        self._server.answers = Replies(places, token, {f"{ADDRESS}:{port}", f"localhost:{port}"})
        self.url: str = f"http://{ADDRESS}:{port}/{token}/"
        """What a browser opens; the word in it is the right to look."""

    def serve(self) -> None:
        """Reply requests until `close` is called by another thread, or the program is interrupted."""
        self._server.serve_forever(poll_interval=0.05)

    def close(self) -> None:
        """End it; what is on its way is abandoned."""
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def view(
    path: str | os.PathLike[str],
    *,
    port: int = 0,
    follow_links: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Iterator[View]:
    """Give a page that shows the checkpoint or the folder of checkpoints at `path`, served by another thread.

        with ckptfmt.viewing.view("runs/7") as page:
            print(page.url)
            input()

    `port`: the one to listen at, on 127.0.0.1; 0 takes a free one. `follow_links` and
    `storage_options`, for a URL: as in `ckptfmt.open`.

    Raises `not-found`, `temporary`, `unsupported-source` for a format that the page does not read, and `StorageError`
    where the port is taken.
    """
    opened = View(path, port=port, follow_links=follow_links, storage_options=storage_options)
    thread = threading.Thread(target=opened.serve, name="ckptfmt-view", daemon=True)
    thread.start()
    try:
        yield opened
    finally:
        opened.close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    answers: Replies

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of an answer is no error."""


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: _Server
    protocol_version = "HTTP/1.1"
    server_version = f"ckptfmt/{__version__}"
    sys_version = ""
    timeout = WAIT

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            answer = self.server.answers.answer(self.command, self.path, headers)
        except (UnicodeDecodeError, ValueError):
            self.send_error(400)
            return
        self._send(answer)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _send(self, answer: Reply) -> None:
        self.send_response(answer.status)
        for name, value in {**HEADERS, **answer.headers, "Content-Length": str(answer.length)}.items():
            self.send_header(name, value)
        self.end_headers()
        sent = 0
        with contextlib.suppress(CkptError):
            for piece in answer.body:
                self.wfile.write(piece)
                sent += len(piece)
        if self.command != "HEAD" and sent < answer.length:
            self.close_connection = True  # so that the browser sees that it ended early

    def log_message(self, *_: object) -> None:
        """Nothing: names of tensors and files stay on the terminal of whoever looks."""
