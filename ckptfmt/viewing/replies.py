"""From a request to an answer: what is refused, and which bytes of which object are given. No sockets here.

A page of any other site may send requests to this machine, and a name server may call this machine by a name of that
site. So the path of every URL begins with a word that only the caller of the program knows, and the host that a
request names must be this machine's own. Nothing is changed by any request.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from ..errors import CkptError
from ..storage import Storage
from .page import page
from .places import ViewedPlace, ViewedPlaces, is_object
from .spans import ByteRange, span_of

PIECE = 1 << 20  # bytes read at a time
INDEX = "index.json"
STATUS = {"missing-object": 404, "not-found": 404, "not-a-checkpoint": 404, "linked-object": 403, "permission": 403}
HEADERS = {
    "Cache-Control": "no-store",
    # beside that of the page itself; the decoder of zstd stands in a data: URL
    "Content-Security-Policy": "connect-src 'self' data:; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Reply(NamedTuple):
    """What is sent: the status, headers beside those of every answer, and the body, of `length` bytes."""

    status: int
    headers: dict[str, str]
    length: int
    body: Iterator[bytes]


class Replies:
    """Answers requests for what is at `places`, below the word `token`, that name one of `hosts`."""

    def __init__(self, places: ViewedPlaces, token: str, hosts: set[str]) -> None:
        self.places, self.token, self.hosts = places, token, hosts

    def answer(self, method: str, target: str, headers: Mapping[str, str]) -> Reply:
        """The answer to a GET or HEAD request; headers have their names in lower case."""
        if headers.get("host", "").lower() not in self.hosts:
            return _refusal(403, "other-host", "this server answers at its own address only")
        parts = urlsplit(target).path.split("/", 2)
        if len(parts) < 3 or not hmac.compare_digest(parts[1].encode(), self.token.encode()):
            return _refusal(404, "no-such-page", "open the URL that `ckptfmt view` has printed")
        found = self._found(unquote(parts[2], errors="strict"), headers)
        return found._replace(body=iter(())) if method == "HEAD" else found

    def _found(self, name: str, headers: Mapping[str, str]) -> Reply:
        if name == "":
            return _whole("text/html; charset=utf-8", page(index=INDEX))
        try:
            if name == INDEX:
                return _json(200, self.places.index())
            kind, _, rest = name.partition("/")
            number, _, object = rest.partition("/")
            place = self.places.at(int(number)) if kind == "at" and number.isdecimal() and len(number) < 10 else None
            if place is None or (object and not is_object(object)):
                return _refusal(404, "no-such-object", "there is nothing of this name")
            return _object(place, object, headers)
        except CkptError as error:
            return _refusal(STATUS.get(error.code, 502), error.code, error.message, advice=error.advice)


def _object(place: ViewedPlace, name: str, headers: Mapping[str, str]) -> Reply:
    """The bytes of an object that a request asks for, if it is still what the request says it was."""
    storage = place.storage()
    if storage.is_directory != bool(name):
        return _refusal(404, "no-such-object", "there is nothing of this name")
    try:
        return _bytes(storage, name, headers)
    except CkptError as error:
        if storage.is_remote and place.forget():
            return _changed(error.message)
        raise


def _bytes(storage: Storage, name: str, headers: Mapping[str, str]) -> Reply:
    seen, size = storage.seen(name), storage.size(name)
    tag = f'"{seen}"'
    if (wanted := headers.get("if-match")) not in (None, "*", tag):
        return _changed(f"it was {wanted}, and is {tag}")
    span = span_of(headers.get("range"), size)
    about = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", "ETag": tag}
    if span is None:
        return Reply(416, about | {"Content-Range": f"bytes */{size}"}, 0, iter(()))
    is_part = "range" in headers and (span.start > 0 or span.stop < size)
    if is_part:
        about["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{size}"
    pieces = _pieces(storage, name, span, seen)
    first = next(pieces, b"")  # what is wrong with an object mostly shows here, where it can still be said
    return Reply(206 if is_part else 200, about, span.stop - span.start, chain((first,), pieces))


def _pieces(storage: Storage, name: str, span: ByteRange, seen: str) -> Iterator[bytes]:
    """Bytes of an object, for as long as it is what was seen."""
    for start in range(span.start, span.stop, PIECE):
        data = storage.read(name, start, min(PIECE, span.stop - start))
        if storage.seen(name) != seen:
            return
        yield data


def _changed(message: str) -> Reply:
    return _refusal(412, "changed", f"this has changed since it was opened: {message}", advice="Load it again")


def _refusal(status: int, code: str, message: str, headers: Mapping[str, str] | None = None, **more: Any) -> Reply:
    return _json(status, {"error": {"code": code, "message": message, **more}}, headers)


def _json(status: int, document: dict[str, Any], headers: Mapping[str, str] | None = None) -> Reply:
    data = json.dumps(document, allow_nan=False).encode()
    return _whole("application/json", data, status, headers)


def _whole(kind: str, data: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, {"Content-Type": kind, **(headers or {})}, len(data), iter((data,)))
