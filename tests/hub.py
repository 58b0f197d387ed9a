"""A stand-in for the hub of Hugging Face on this machine: one repository, of small files, without a token."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef" * 2 + "01234567"


class Hub(BaseHTTPRequestHandler):
    """What `upload_folder` and `snapshot_download` of huggingface_hub ask for."""

    files: dict[str, bytes]
    url: str

    def do_POST(self) -> None:
        body = self._body()
        reply: dict[str, Any] = {"errors": [], "warnings": []}
        if "/preupload/" in self.path:
            files = [file["path"] for file in json.loads(body)["files"]]
            reply["files"] = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in files]
        elif "/commit/" in self.path:
            for entry in map(json.loads, body.splitlines()):
                if entry["key"] == "file":
                    self.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            reply |= {"commitUrl": f"{self.url}/me/tiny/commit/{COMMIT}", "commitOid": COMMIT}
        self._send(json.dumps(reply).encode(), {"Content-Type": "application/json"})

    def do_GET(self) -> None:
        if "/api/" not in self.path:
            data = self.files[self.path.rpartition("/")[2]]
            self._send(data, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT})
            return
        reply: Any = {"id": "me/tiny", "sha": COMMIT, "siblings": [{"rfilename": name} for name in self.files]}
        if "/tree/" in self.path:
            items = self.files.items()
            reply = [{"type": "file", "path": name, "size": len(data), "oid": "0" * 40} for name, data in items]
        self._send(json.dumps(reply).encode(), {"Content-Type": "application/json"})

    do_HEAD = do_GET  # noqa: N815

    def _body(self) -> bytes:
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def hub() -> Iterator[str]:
    """The URL of one that has nothing yet."""

    class Empty(Hub):
        files: dict[str, bytes] = {}  # noqa: RUF012

    with ThreadingHTTPServer(("127.0.0.1", 0), Empty) as server:
        Empty.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield Empty.url
        finally:
            server.shutdown()
