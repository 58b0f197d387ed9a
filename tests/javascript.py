"""The package of js/, as `make js` builds it, for tests of it: whether it runs here, and what it reads."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

JS = Path(__file__).parents[1] / "js"
WIDE = {"int64": "BigInt64Array", "uint64": "BigUint64Array", "complex64": "Float32Array", "complex128": "Float64Array"}
SAME = {"bool": "Uint8Array", "float32": "Float32Array", "float64": "Float64Array"}
SMALL_INTS = {"int2": "Int8Array", "int4": "Int8Array", "uint2": "Uint8Array", "uint4": "Uint8Array"}


@cache
def program() -> tuple[str, int]:
    """The program itself, where a package of Python puts a script before it, and its major version; 0 without one."""
    if (command := shutil.which("node")) is None:
        return "", 0
    asked = [command, "-p", "process.execPath + ' ' + parseInt(process.versions.node)"]
    path, _, version = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.rpartition(" ")
    return path, int(version)


def missing() -> str:
    """Why the package cannot be run here; "" if it can."""
    if program()[1] < 20:
        return "needs Node 20 or later"
    return "" if (JS / "dist" / "index.js").exists() else "js/ is not built: run `make js`"


def node() -> str:
    """The program that runs it; the test is skipped where that cannot be."""
    if why := missing():
        pytest.skip(why)
    return program()[0]


class Reader:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def read(self, path: Path, where: Any, selection: Any = None, **options: Any) -> dict[str, Any]:
        """A tensor or a slice of it; `options` are those of the `open` of the package."""
        return self.ask(file=str(path), path=where, selection=selection or [], options=options)

    def verify(self, path: Path, where: Any = None, **options: Any) -> Any:
        """What is damaged of a checkpoint, or of a tensor: places, with their codes."""
        return self.ask(file=str(path), path=where, verify=True, options=options)

    def ask(self, **request: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    policy = "--disallow-code-generation-from-strings"  # as in a page without 'unsafe-eval'
    words = [node(), policy, str(Path(__file__).with_name("js_reader.mjs"))]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Reader(process)
        assert process.stdin is not None
        process.stdin.close()
    assert process.returncode == 0


def natural(array: Any) -> tuple[str, bytes]:
    """The array of JavaScript for an array of NumPy, and its bytes."""
    name = array.dtype.name
    if kind := SMALL_INTS.get(name):
        return kind, array.astype(np.int8).tobytes()
    if kind := WIDE.get(name) or SAME.get(name):
        return kind, array.tobytes()
    if array.dtype.kind in "iu":
        return f"{name.capitalize()}Array", array.tobytes()
    return "Float32Array", array.astype(np.float32).tobytes()


def assert_same(found: dict[str, Any], expected: Any) -> None:
    kind, data = natural(expected)
    given_ = base64.b64decode(found["data"])
    assert (found["dtype"], found["shape"], found["array"]) == (expected.dtype.name, list(expected.shape), kind)
    if kind == "Float32Array":  # NaNs are equal, whatever their bits: a table has one
        np.testing.assert_array_equal(np.frombuffer(given_, np.float32), np.frombuffer(data, np.float32))
    else:
        assert given_ == data
