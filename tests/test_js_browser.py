"""The reader in JavaScript in a real browser: the conformance suite, other origins, files that are chosen."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from javascript import JS, node

import ckptfmt
from conformance.__main__ import implementation
from conformance.cases import read_cases
from conformance.implementations.chromium import NAMES, FilesByUrl, page_of_reader
from conformance.run import BROKEN, FAILED, PASSED, run_cases

EVERY = 9  # of the cases, so that it is quick
WTE = np.arange(3 << 20, dtype=np.float32).reshape(3, 1024, 1024).astype(ml_dtypes.bfloat16)

SCRIPT = """async (given) => {
    const { open } = await import('INDEX');
    const requests = [];
    const onRequest = ({ method, range }) => requests.push(`${method} ${range ?? ''}`);
    try {
        const checkpoint = await open(OPENED, { onRequest });
        const { data, shape } = await (await checkpoint.tensor('model/wte')).read([1, { stop: 2 }, { start: 1022 }]);
        const damage = given.verify ? (await checkpoint.verify()).map(String) : [];
        return { data: [...data], shape, loss: checkpoint.metadata.get('loss'), requests, damage };
    } catch (error) {
        return { code: error.code ?? 'none', message: error.message, requests };
    }
}""".replace("INDEX", str(JS / "dist" / "index.js"))


def check_browser() -> None:
    """Skip the test where there is none."""
    node()
    if not any(map(shutil.which, NAMES)):
        pytest.skip("Chromium is not installed")


@pytest.mark.parametrize("step", [EVERY, pytest.param(1, marks=pytest.mark.slow)])
def test_the_suite_passes_in_a_browser(step: int) -> None:
    check_browser()
    with implementation("chromium", 60) as found:
        results = run_cases(found, read_cases()[::step])
    assert {r.case.id: r.message for r in results if r.outcome in (FAILED, BROKEN)} == {}
    assert sum(result.outcome == PASSED for result in results) > 1000 / step


@pytest.fixture(scope="module")
def page() -> Iterator[tuple[Any, str]]:
    """A page, and the origin that it is of."""
    check_browser()
    with page_of_reader() as (page, place):
        yield page, place


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("web") / "model.ckpt"
    ckptfmt.save(path, {"model": {"wte": WTE, "b": np.arange(5)}}, metadata={"loss": 0.5}, durable=False)
    return path


def read(page: Any, opened: str, **arguments: Any) -> dict[str, Any]:
    """What a page makes of the checkpoint that the expression `opened` opens: values, or a code and its message."""
    found: dict[str, Any] = page.evaluate(SCRIPT.replace("OPENED", opened), arguments)
    return found


def assert_read(found: dict[str, Any]) -> None:
    assert found.get("code") is None, found
    expected = WTE[1, :2, 1022:].astype(np.float32)
    assert (found["shape"], found["data"]) == ([2, 2], expected.ravel().tolist())
    assert (found["loss"], found["damage"]) == (0.5, [])


@contextmanager
def other_origin(headers: Callable[[FilesByUrl], dict[str, str]], preflight: int = 204) -> Iterator[str]:
    """A server of another origin that adds headers to its answers."""

    class Elsewhere(FilesByUrl):
        def do_OPTIONS(self) -> None:  # noqa: N802
            self.send_response(preflight)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def end_headers(self) -> None:
            for name, value in headers(self).items():
                self.send_header(name, value)
            super().end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_url_of_the_same_origin(page: tuple[Any, str], saved: Path) -> None:
    found = read(page[0], "given.url", url=str(saved), verify=True)
    assert_read(found)
    assert found["requests"][0] == "GET bytes=-131072"
    assert len(read(page[0], "given.url", url=str(saved))["requests"]) <= 5


def test_a_file_that_is_chosen(page: tuple[Any, str], saved: Path) -> None:
    page[0].evaluate("document.body.innerHTML = '<input type=file id=chosen>'")
    page[0].set_input_files("#chosen", str(saved))
    assert_read(read(page[0], "document.getElementById('chosen').files[0]", verify=True))


def test_a_chosen_file_that_is_changed_before_it_is_read(page: tuple[Any, str], saved: Path, tmp_path: Path) -> None:
    shutil.copy(saved, tmp_path / "changing.ckpt")
    page[0].evaluate("document.body.innerHTML = '<input type=file id=changing>'")
    page[0].set_input_files("#changing", str(tmp_path / "changing.ckpt"))
    (tmp_path / "changing.ckpt").write_bytes(b"another")
    found = read(page[0], "document.getElementById('changing').files[0]")
    assert found["code"] in ("io", "not-a-checkpoint"), found


def test_another_origin_that_exposes_nothing(page: tuple[Any, str], saved: Path) -> None:
    """Ranges with a beginning and an end need no leave: the size is that of HEAD."""
    with other_origin(lambda _: {"Access-Control-Allow-Origin": "*"}, preflight=403) as place:
        found = read(page[0], "given.url", url=f"{place}{saved}", verify=True)
        assert_read(found)
        assert found["requests"][0] == "HEAD "
        assert not any(request.startswith("GET bytes=-") for request in found["requests"])


def test_another_origin_without_head(page: tuple[Any, str], saved: Path) -> None:
    """As presigned URLs, which are for one method: where ranges are exposed they tell the size."""
    allowed = {
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Allow-Headers": "range",
        "Access-Control-Expose-Headers": "Content-Range, ETag",
    }
    with other_origin(lambda handler: {} if handler.command == "HEAD" else allowed) as place:
        assert_read(read(page[0], "given.url", url=f"{place}{saved}"))


def test_another_origin_that_allows_nothing(page: tuple[Any, str], saved: Path) -> None:
    with other_origin(lambda _: {}) as place:
        found = read(page[0], "given.url", url=f"{place}{saved}")
    assert found["code"] == "io"
    assert "Access-Control-Allow-Origin" in found["message"]


def test_a_path_is_refused_in_a_page(page: tuple[Any, str]) -> None:
    found = read(page[0], "'file:///model.ckpt'")
    assert (found["code"], found["requests"]) == ("not-found", [])
