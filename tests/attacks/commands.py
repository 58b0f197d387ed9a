"""The command line in this process, as an attack calls it: it ends in one of its exit codes, and shows no control
characters."""

from __future__ import annotations

import contextlib
import io
import os
from typing import Any

import ckptfmt.cli.app
from ckptfmt.cli import main

MOST = 1 << 20  # characters that a command may say of a small source


def run(*arguments: Any) -> int:
    """Run `ckptfmt`, and look at what it prints."""
    raw = [io.BytesIO(), io.BytesIO()]
    streams = [io.TextIOWrapper(buffer, "utf-8", write_through=True) for buffer in raw]
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        code = main([os.fspath(argument) for argument in arguments])
    text = "".join(buffer.getvalue().decode() for buffer in raw)
    assert code in (0, 1, 2, 3), code
    assert "Traceback" not in text, text[-2000:]
    assert len(text) <= MOST, f"{len(text):,} characters"
    bad = {character for character in text if not character.isprintable() and character != "\n"}
    assert not bad, f"{arguments}: {bad}"
    return code


assert ckptfmt.cli.app  # its memory is not what is measured
