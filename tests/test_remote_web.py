"""Checkpoints on web servers, which can be read."""

from __future__ import annotations

import functools
import http.server
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import s3

import ckptfmt
from ckptfmt.testing import assert_same_tree

TREE = {"model": {"w": np.ones((50, 1000), np.float32), "b": np.arange(10)}, "step": 7}


class Ranges(http.server.SimpleHTTPRequestHandler):
    """A web server that knows ranges."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data, asked = path.read_bytes(), self.headers.get("Range", "")
        found = re.fullmatch(r"bytes=(\d*)-(\d*)", asked)
        first, last = 0, len(data) - 1
        if found:
            first = int(found[1]) if found[1] else max(0, len(data) - int(found[2]))
            last = min(last, int(found[2])) if found[1] and found[2] else last
        self.send_response(206 if found else 200)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("Last-Modified", self.date_time_string(0))
        self.end_headers()
        self.wfile.write(data[first : last + 1])

    def do_HEAD(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(path.stat().st_size))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Last-Modified", self.date_time_string(0))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.mark.parametrize("engine", s3.ENGINES)
def test_the_web_can_be_read(tmp_path: Path, engine: str) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Ranges, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    obstore: dict[str, Any] = {"engine": "obstore", "client_options": {"allow_http": True}}
    options = obstore if engine == "obstore" else {}
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        for layout in ("file", "packed", "loose"):
            ckptfmt.save(tmp_path / layout, TREE, layout=layout)
            assert_same_tree(ckptfmt.load(f"{url}/{layout}", storage_options=options), TREE)
        with pytest.raises(ckptfmt.MissingError):
            ckptfmt.load(f"{url}/model.ckpt", storage_options=options)
        for layout in ("file", "packed"):
            for overwrite in (False, True):
                with pytest.raises(ckptfmt.InputError, match="can be read, not written") as caught:
                    ckptfmt.save(f"{url}/x", TREE, layout=layout, overwrite=overwrite, storage_options=options)
                assert caught.value.code == "bad-option"
    finally:
        server.shutdown()
        server.server_close()


def test_a_web_server_that_is_down_or_fails_is_not_an_empty_one() -> None:
    """fsspec calls both a missing file."""

    class Failing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(500)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Failing)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    for down in (False, True):
        with pytest.raises(ckptfmt.StorageError) as caught:
            ckptfmt.load(f"http://127.0.0.1:{server.server_port}/model.ckpt")
        assert caught.value.code == "io"
        if not down:
            server.shutdown()
            server.server_close()
