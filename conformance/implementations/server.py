"""The protocol's loop, for implementations written in Python."""

from __future__ import annotations

import json
import sys
from typing import Any, ClassVar


class Refused(Exception):
    """A reply that is not `ok`: its kind (`error`, `unsupported`, `skipped`) and body, and further keys."""

    def __init__(self, kind: str, body: Any, **keys: Any) -> None:
        super().__init__(kind, body)
        self.reply = {kind: body, **keys}


class Server:
    """Answers the request `op` with the method `do_op`, which takes the request and gives the body of `ok`."""

    name = version = ""
    features: ClassVar[list[str]] = []

    def do_hello(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"name": self.name, "version": self.version, "features": self.features}

    def refusal(self, error: Exception) -> Refused | None:
        """The reply to an exception; None if it is a fault of the program, which then ends."""
        return error if isinstance(error, Refused) else None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        operation = getattr(self, f"do_{request['op']}", None)
        if operation is None:
            return {"unsupported": request["op"]}
        try:
            return {"ok": operation(request)}
        except Exception as error:
            refused = self.refusal(error)
            if refused is None:
                raise
            return refused.reply

    def serve(self) -> None:
        """Answer until `bye` or the end of standard input."""
        replies = sys.stdout
        sys.stdout = sys.stderr  # what a library prints is no reply
        for line in sys.stdin:
            request = json.loads(line)
            if request["op"] == "bye":
                return
            print(json.dumps({"id": request["id"], **self.answer(request)}), file=replies, flush=True)
