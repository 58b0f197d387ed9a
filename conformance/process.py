"""An implementation as a subprocess that speaks PROTOCOL.md. Nothing that it does wrong ends the run: it is reported
as what it is."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

KINDS = ("ok", "error", "unsupported", "skipped")
STDERR_LINES = 40
MAX_LINE = 64 << 20  # characters of a reply


class Reply(NamedTuple):
    """One reply: its `kind`, what it holds, and the bytes that the process read meanwhile (None: not known)."""

    kind: str
    body: Any
    whole: dict[str, Any]
    bytes_read: int | None


class Broken(Exception):
    """The implementation broke the protocol: `how` is `start`, `crash`, `timeout`, `junk` or `order`."""

    def __init__(self, how: str, message: str) -> None:
        super().__init__(message)
        self.how, self.message = how, message


class Implementation:
    """A running implementation. Use as a context manager; `restart` after `Broken`."""

    def __init__(self, command: list[str], timeout: float = 10.0, environment: dict[str, str] | None = None) -> None:
        self.command, self.timeout = command, timeout
        self.environment = {**os.environ, **(environment or {})}
        self.name, self.version = command[0], ""
        self.features: frozenset[str] = frozenset()
        self.failure: Broken | None = None  # why it never got as far as a valid hello
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._stderr: deque[str] = deque(maxlen=STDERR_LINES)
        self._number = 0

    def __enter__(self) -> Implementation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def stderr(self) -> str:
        """The end of what it wrote to standard error."""
        return "".join(self._stderr)

    def start(self) -> None:
        """Start it and ask who it is; raises `Broken`, and the same again if it never did start."""
        if self.failure is not None:
            raise self.failure
        try:
            self._start()
        except Broken as broken:
            self.failure = None if self.features else broken
            raise

    def _start(self) -> None:
        self.close()
        self._lines, self._stderr, self._number = queue.Queue(), deque(maxlen=STDERR_LINES), 0
        try:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self.environment,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            raise Broken("start", f"{self.command[0]} does not start: {error}") from error
        threading.Thread(target=self._read_lines, args=(self._process, self._lines), daemon=True).start()
        threading.Thread(target=self._read_stderr, args=(self._process, self._stderr), daemon=True).start()
        reply = self.ask({"op": "hello", "protocol": 1})
        match reply:
            case Reply("ok", {"name": str(name), "version": str(version), "features": list(features)}):
                self.name, self.version, self.features = name, version, frozenset(map(str, features))
            case _:
                raise Broken("junk", f"the reply to hello is {json.dumps(reply.whole)[:200]}")

    def ask(self, request: dict[str, Any]) -> Reply:
        """Send one request and wait for its reply; raises `Broken`."""
        if self._process is None:
            self.start()
        self._number += 1
        before = self._bytes_read()
        try:
            self._send({"id": self._number, **request})
        except OSError as error:
            raise Broken("crash", f"it ended {self._ending()}") from error
        reply = self._reply(request["op"])
        after = self._bytes_read()
        read = after - before if before is not None and after is not None else None
        if read is None and isinstance(reply.body, dict) and isinstance(reply.body.get("io"), dict):
            read = reply.body["io"].get("bytes")
        return reply._replace(bytes_read=read)

    def stray(self) -> str:
        """A line that nobody asked for, "" if there is none."""
        try:
            return self._lines.get_nowait() or ""
        except queue.Empty:
            return ""

    def close(self) -> None:
        """End it: politely if it listens."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                self._send({"id": self._number + 1, "op": "bye"})
                self._process.wait(2)
        self.kill()

    def kill(self) -> None:
        """End it, however it is."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):  # also what it has started, such as the program behind a shell
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # what was not read by it
            process.stdin.close()

    def _send(self, request: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def _reply(self, op: str) -> Reply:
        try:
            line = self._lines.get(timeout=self.timeout)
        except queue.Empty:
            raise Broken("timeout", f"no reply to {op} within {self.timeout:g} s") from None
        if line is None:
            raise Broken("crash", f"it ended {self._ending()} instead of replying to {op}")
        try:
            whole = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Broken("junk", f"the reply to {op} is no JSON: {line[:200]!r}") from error
        kinds = [kind for kind in KINDS if isinstance(whole, dict) and kind in whole]
        if len(kinds) != 1:
            raise Broken("junk", f"the reply to {op} has not exactly one of {', '.join(KINDS)}: {line[:200]!r}")
        if whole.get("id") != self._number:
            raise Broken("order", f"the reply to request {self._number} has the id {whole.get('id')!r}")
        kind, body = kinds[0], whole[kinds[0]]
        if not isinstance(body, dict if kind in ("ok", "error") else str):
            raise Broken("junk", f"`{kind}` of the reply to {op} is of another type: {line[:200]!r}")
        return Reply(kind, body, whole, None)

    def _ending(self) -> str:
        assert self._process is not None
        try:
            code = self._process.wait(2)
        except subprocess.TimeoutExpired:
            return "its standard output"
        return f"with status {code}" if code >= 0 else f"by signal {-code}"

    def _bytes_read(self) -> int | None:
        """Bytes that the process has asked the system for, as the kernel counts them."""
        assert self._process is not None
        try:
            text = Path(f"/proc/{self._process.pid}/io").read_text()
        except OSError:
            return None
        return int(text.split()[1])  # rchar

    @staticmethod
    def _read_lines(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
        assert process.stdout is not None
        with process.stdout as out:
            while line := out.readline(MAX_LINE):
                lines.put(line)
        lines.put(None)

    @staticmethod
    def _read_stderr(process: subprocess.Popen[str], kept: deque[str]) -> None:
        assert process.stderr is not None
        with process.stderr as err:
            for line in err:
                kept.append(line)
