"""An S3 server on this machine, the two engines' options for it, and a proxy in front of it that counts requests and
makes them fail."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import logging
import os
import re
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import boto3
import fsspec
import pytest
import s3fs
from moto.server import ThreadedMotoServer

BUCKET = "bucket"
ENGINES = ("fsspec", "obstore")


@contextlib.contextmanager
def serve() -> Iterator[str]:
    """The endpoint of a server with one bucket."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for every request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    client(endpoint).create_bucket(Bucket=BUCKET)
    try:
        yield endpoint
    finally:
        server.stop()


@contextlib.contextmanager
def by_environment() -> Iterator[None]:
    """A server that clients find by the environment, as they find a user's own store."""
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    with serve() as endpoint, mock.patch.dict(os.environ, {**keys, "AWS_ENDPOINT_URL": endpoint}):
        s3fs.S3FileSystem.clear_instance_cache()
        try:
            yield
        finally:
            s3fs.S3FileSystem.clear_instance_cache()


def client(endpoint: str) -> Any:
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    return boto3.client("s3", endpoint_url=endpoint, **keys)


def options(engine: str, endpoint: str) -> dict[str, Any]:
    """What `storage_options=` is for an engine."""
    if engine == "fsspec":
        return {"endpoint_url": endpoint, "key": "test", "secret": "test"}
    return {
        "engine": "obstore",
        "endpoint": endpoint,
        "access_key_id": "test",
        "secret_access_key": "test",
        "region": "us-east-1",
        "client_options": {"allow_http": True},
    }


def environment(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Say by the environment, as users do, what `options` says."""
    for name, value in {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "ENDPOINT_URL": endpoint}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()  # one may remember another environment


def keys(endpoint: str, folder: str) -> list[str]:
    """All keys in a folder of the bucket, relative to it."""
    found = client(endpoint).list_objects_v2(Bucket=BUCKET, Prefix=f"{folder}/").get("Contents", [])
    return [entry["Key"].removeprefix(f"{folder}/") for entry in found]


def unfinished(endpoint: str, folder: str) -> list[str]:
    """The keys of uploads in parts that were neither completed nor aborted."""
    found = client(endpoint).list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    return [entry["Key"] for entry in found if entry["Key"].startswith(f"{folder}/")]


# ---- the proxy

ANSWERS = {
    409: "ConditionalRequestConflict",
    412: "PreconditionFailed",
    500: "InternalError",
    503: "SlowDown",
}
FAULTS = ("refuse", "drop", "delay", "409", "412", "500", "500 after", "503", "cut")


@dataclass
class Request:
    """One request as the proxy saw it: `sent` and `got` are bytes of bodies."""

    method: str
    path: str
    sent: int
    got: int = 0
    status: int = 0
    is_conditional: bool = False  # a conditional create


@dataclass
class Case:
    """What happens to the requests for one folder of the bucket: `fault` says which of `FAULTS` befalls request number
    n, if any."""

    fault: Callable[[int, Request], str | None] = lambda number, request: None
    requests: list[Request] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def bytes_got(self) -> int:
        return sum(request.got for request in self.requests)


class Proxy:
    """An HTTP proxy. Requests whose URL has `folder/` in it belong to `cases[folder]`, all others pass."""

    def __init__(self, endpoint: str, delay: float = 0.05) -> None:
        self.target = endpoint.removeprefix("http://")
        self.delay = delay
        self.cases: dict[str, Case] = {}
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                with contextlib.suppress(ConnectionError):
                    super().handle_one_request()
                    return
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                """Nothing."""

            def pass_on(self) -> None:
                proxy._pass_on(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = pass_on  # noqa: N815

        class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
            daemon_threads = True
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def case(self, folder: str, fault: Callable[[int, Request], str | None] = lambda number, request: None) -> Case:
        """Watch a folder of the bucket, and let requests for it fail."""
        self.cases[folder] = Case(fault)
        return self.cases[folder]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _case(self, path: str) -> Case | None:
        return next((case for folder, case in [*self.cases.items()] if re.search(rf"{folder}(/|%2F|$)", path)), None)

    def _pass_on(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        body = _body(handler)
        condition = "If-None-Match" in handler.headers
        request = Request(handler.command, handler.path, len(body), is_conditional=condition)
        case, fault = self._case(handler.path), None
        if case is not None:
            with case.lock:
                fault = case.fault(len(case.requests), request)
                case.requests.append(request)
        if fault == "refuse":
            return _hang_up(handler)
        if fault in ("409", "412", "500", "503"):
            request.status = int(fault)
            return _answer(handler, request.status)
        if fault == "delay":
            time.sleep(self.delay)
        backend = http.client.HTTPConnection(self.target)
        headers = {name: value for name, value in handler.headers.items() if name.lower() != "transfer-encoding"}
        headers |= {"Connection": "close"} | ({"Content-Length": str(len(body))} if body else {})
        backend.request(handler.command, handler.path, body=body or None, headers=headers)
        answer = backend.getresponse()
        data = answer.read()
        backend.close()
        request.status, request.got = answer.status, len(data)
        if fault == "drop":
            return _hang_up(handler)
        if fault == "500 after":
            return _answer(handler, 500)
        handler.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                handler.send_header(name, value)
        length = answer.getheader("Content-Length") if handler.command == "HEAD" else str(len(data))
        handler.send_header("Content-Length", length or "0")
        handler.end_headers()
        if fault == "cut":
            handler.wfile.write(data[: len(data) // 2])
            return _hang_up(handler)
        handler.wfile.write(data)
        return None


def _body(handler: http.server.BaseHTTPRequestHandler) -> bytes:
    if "chunked" not in handler.headers.get("Transfer-Encoding", ""):
        return handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
    parts = []
    while size := int(handler.rfile.readline().partition(b";")[0], 16):
        parts.append(handler.rfile.read(size))
        handler.rfile.readline()
    handler.rfile.readline()
    return b"".join(parts)


def _answer(handler: http.server.BaseHTTPRequestHandler, status: int) -> None:
    condition = "<Condition>If-None-Match</Condition>" if status == 412 else ""
    text = f"<Error><Code>{ANSWERS[status]}</Code><Message>asked for by the test</Message>{condition}</Error>"
    handler.send_response_only(status)
    handler.send_header("Content-Type", "application/xml")
    handler.send_header("Content-Length", str(len(text)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(text.encode())


def _hang_up(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    with contextlib.suppress(OSError):
        handler.wfile.flush()
        handler.connection.shutdown(socket.SHUT_RDWR)
