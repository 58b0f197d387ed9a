"""The server of `ckptfmt view`: it gives what is at its path, to whoever has its URL, and nothing else to anybody."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPMessage
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from programs import command, environment
from stores import Store, save
from stores import endpoint as endpoint
from stores import s3_store as s3_store

import ckptfmt
import ckptfmt.viewing
from ckptfmt.cli.app import cli
from ckptfmt.viewing.page import page
from ckptfmt.viewing.places import is_object
from ckptfmt.viewing.spans import span_of

TREE = {"w": np.arange(5000.0), "b": np.zeros(3, np.int8)}


class Got(NamedTuple):
    """An answer."""

    status: int
    headers: HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Asker:
    """Asks one server, with what a browser would not send, too."""

    def __init__(self, url: str) -> None:
        self.parts = urlsplit(url)

    def get(self, name: str = "", method: str = "GET", *, raw: str | None = None, **headers: str) -> Got:
        connection = HTTPConnection(str(self.parts.hostname), self.parts.port, timeout=20)
        spelt = {key.replace("_", "-"): value for key, value in headers.items()}
        connection.request(method, self.parts.path + name if raw is None else raw, headers=spelt)
        answer = connection.getresponse()
        got = Got(answer.status, answer.headers, answer.read())
        connection.close()
        return got


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.ckpt"
    ckptfmt.save(path, TREE, durable=False)
    return path


@pytest.fixture
def asker(path: Path) -> Iterator[Asker]:
    with ckptfmt.viewing.view(path) as view:
        yield Asker(view.url)


def run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


# ---- what is given


def test_the_page_says_that_there_is_a_list(asker: Asker) -> None:
    got = asker.get()
    assert got.status == 200
    assert got.body == page(index="index.json") != page()
    assert b'<meta name="ckptfmt-index" content="index.json">' in got.body
    assert asker.get("index.json").json["checkpoints"][0]["at"] == "at/0"


def test_ranges(asker: Asker, path: Path) -> None:
    data = path.read_bytes()
    whole = asker.get("at/0")
    assert (whole.status, whole.body, whole.headers["Accept-Ranges"]) == (200, data, "bytes")
    got = asker.get("at/0", Range="bytes=10-19")
    assert (got.status, got.body) == (206, data[10:20])
    assert got.headers["Content-Range"] == f"bytes 10-19/{len(data)}"
    assert asker.get("at/0", Range="bytes=-7").body == data[-7:]
    assert asker.get("at/0", Range=f"bytes={len(data)}-").status == 416
    assert asker.get("at/0", Range=f"bytes=0-{10**18}").body == data
    head = asker.get("at/0", "HEAD")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", str(len(data)))


@given(st.integers(0, 50), st.one_of(st.none(), st.integers(0, 60)), st.one_of(st.none(), st.integers(0, 60)))
def test_a_range_is_a_slice(size: int, first: int | None, last: int | None) -> None:
    header = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    span = span_of(header, size)
    whole = bytes(range(size))
    if (first, last) == (None, None) or (first is not None and last is not None and first > last):
        assert span == (0, size), "not a range: as if it had not been asked for"
    elif first is None:
        assert last is not None
        assert span == (None if 0 in (size, last) else (max(0, size - last), size))
    else:
        wanted = whole[first : None if last is None else last + 1]
        assert (span is None) == (wanted == b"")
        assert span is None or whole[span.start : span.stop] == wanted


@pytest.mark.parametrize("layout", ["packed", "loose"])
def test_objects_of_a_directory(tmp_path: Path, layout: Any) -> None:
    ckptfmt.save(tmp_path / "model", TREE, layout=layout, durable=False)
    with ckptfmt.viewing.view(tmp_path / "model") as view:
        asker = Asker(view.url)
        assert asker.get("index.json").json["checkpoints"][0]["directory"] is True
        for file in (tmp_path / "model").rglob("*"):
            if file.is_file():
                got = asker.get(f"at/0/{file.relative_to(tmp_path / 'model').as_posix()}")
                assert (got.status, got.body) == (200, file.read_bytes())
        assert asker.get("at/0/parts/00007.msgpack").status == 404
        assert asker.get("at/0").status == 404


# ---- to whom


def test_without_the_word_there_is_nothing(asker: Asker) -> None:
    word = asker.parts.path.strip("/")
    for raw in (
        "/",
        "/index.json",
        "/at/0",
        "//",
        f"/{word[:-1]}/at/0",
        f"/x{word}/at/0",
        f"/{word}",
        f"/%00{word}/at/0",
    ):
        got = asker.get(raw=raw)
        assert got.status == 404, raw
        assert b"model.ckpt" not in got.body


def test_another_name_of_this_machine_is_refused(asker: Asker) -> None:
    """As when the name server of a page gives the address of this machine for the page's own name."""
    port = asker.parts.port
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "127.0.0.1",
        f"127.0.0.1:{port}.evil.example",
        f"[::1]:{port}",
        "",
    ):
        got = asker.get("at/0", Host=host)
        assert (got.status, got.json["error"]["code"]) == (403, "other-host"), host
    assert asker.get("at/0", Host=f"localhost:{port}").status == 200


def test_other_sites_are_told_nothing(asker: Asker) -> None:
    for name in ("", "index.json", "at/0"):
        headers = asker.get(name, Origin="https://evil.example").headers
        assert "Access-Control-Allow-Origin" not in headers
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_changed(asker: Asker, path: Path, method: str) -> None:
    before = path.read_bytes()
    assert asker.get("at/0", method).status == 501
    assert path.read_bytes() == before


def test_it_listens_on_this_machine_alone(asker: Asker) -> None:
    assert asker.parts.hostname == "127.0.0.1"
    assert len(asker.parts.path) > 30


# ---- and of nothing else

BESIDE = ["../secret", "..%2fsecret", "%2e%2e/secret", "/etc/hostname", "tensors/../../secret", "COMMIT%00",
          "packs/..%2f..%2fsecret", "link", "tensors/link", "COMMIT/../../secret", "packs//00000.zip", "packs/.",
          "packs/%00", "packs\\..\\secret"]  # fmt: skip


@pytest.mark.parametrize("name", BESIDE)
def test_what_lies_beside_it_is_not_given(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("hidden words")
    ckptfmt.save(tmp_path / "model", TREE, layout="packed", durable=False)
    (tmp_path / "model" / "tensors").mkdir()
    for link in ("link", "tensors/link"):
        (tmp_path / "model" / link).symlink_to(tmp_path / "secret")
    with ckptfmt.viewing.view(tmp_path / "model") as view:
        got = Asker(view.url).get(f"at/0/{name}")
    assert got.status in (400, 403, 404), got
    assert b"hidden words" not in got.body


@given(st.text(alphabet="./\\~ab%\0CTOMI", max_size=12))
def test_a_name_of_an_object_leads_nowhere_else(name: str) -> None:
    if is_object(f"tensors/{name}") and name:
        assert os.path.normpath(f"tensors/{name}") == f"tensors/{name}"


@pytest.mark.parametrize(
    "name", ["at/1", "at/-1", f"at/{10**20}", "at/x", "at/", "at", "at/%C2%B2", "AT/0", "at/0/COMMIT"]
)
def test_other_numbers(asker: Asker, name: str) -> None:
    assert asker.get(name).status == 404


# ---- what changes


def test_a_file_that_changes_is_told(asker: Asker, path: Path) -> None:
    tag = asker.get("at/0", Range="bytes=0-9").headers["ETag"]
    assert asker.get("at/0", If_Match=tag).status == 200
    with open(path, "r+b") as file:
        file.write(b"x")
    os.utime(path, ns=(1, 1))
    got = asker.get("at/0", If_Match=tag)
    assert (got.status, got.json["error"]["code"]) == (412, "changed")
    assert asker.get("at/0").headers["ETag"] != tag


def test_a_file_that_is_replaced_is_the_new_one(asker: Asker, path: Path) -> None:
    tag = asker.get("at/0").headers["ETag"]
    ckptfmt.save(path, {"other": np.ones(7)}, overwrite=True, durable=False)
    assert asker.get("at/0", If_Match=tag).status == 412
    got = asker.get("at/0")
    assert (got.body, got.headers["ETag"] != tag) == (path.read_bytes(), True)


def test_a_file_that_is_gone(asker: Asker, path: Path) -> None:
    assert asker.get("at/0").status == 200
    path.unlink()
    got = asker.get("at/0")
    assert (got.status, got.json["error"]["code"]) == (404, "not-found")


# ---- folders


def test_the_steps_of_a_run(tmp_path: Path) -> None:
    with ckptfmt.CheckpointManager(tmp_path / "run") as manager:
        for step in (1, 2, 10):
            manager.save(step, {"w": np.full(3, step)}, metrics={"loss": 1 / step, "odd": float("nan")})
    (tmp_path / "run" / "model.npz").write_bytes(b"")
    np.savez(tmp_path / "run" / "model.npz", w=np.zeros(3))
    with ckptfmt.viewing.view(tmp_path / "run") as view:
        asker = Asker(view.url)
        index = asker.get("index.json").json
        assert (index["folder"], [row["step"] for row in index["checkpoints"]]) == (True, [1, 2, 10, None])
        assert index["checkpoints"][2]["metrics"] == {"loss": 0.1, "odd": "nan"}
        places = [row["at"] for row in index["checkpoints"]]
        assert places[3] is None
        assert "ckptfmt convert" in index["checkpoints"][3]["advice"]
        bodies = {asker.get(place).body for place in places[:3]}
        assert len(bodies) == 3
        with ckptfmt.CheckpointManager(tmp_path / "run") as manager:
            manager.save(50, {"w": np.zeros(3)})
        again = asker.get("index.json").json["checkpoints"]
        assert {row["name"]: row["at"] for row in again if row["step"] in (1, 2, 10)} == {
            row["name"]: row["at"] for row in index["checkpoints"][:3]
        }


def test_links_in_a_folder_are_passed_over(tmp_path: Path, path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "link.ckpt").symlink_to(path)
    with ckptfmt.viewing.view(tmp_path / "run") as view:
        assert Asker(view.url).get("index.json").json["checkpoints"] == []


def test_what_is_damaged_can_be_looked_at(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])
    with ckptfmt.viewing.view(path) as view:
        assert Asker(view.url).get("at/0").status == 200


def test_a_store(s3_store: Store) -> None:
    """Of a file on a store ranges are read, and one that is replaced is told."""
    save(s3_store, {"w": np.arange(99_999.0)})
    with ckptfmt.viewing.view(s3_store.url, storage_options=s3_store.options) as view:
        asker = Asker(view.url)
        got = asker.get("at/0", Range="bytes=0-3")
        assert (got.status, got.body) == (206, b"PK\3\4")
        assert asker.get("at/0", If_Match=got.headers["ETag"]).status == 200
        save(s3_store, {"w": np.ones(99_999)}, overwrite=True)
        assert asker.get("at/0", If_Match=got.headers["ETag"], Range="bytes=0-9").status == 412
        assert asker.get("at/0", Range="bytes=0-3").body == b"PK\3\4"


# ---- the command


def test_the_command_serves_until_it_is_interrupted(path: Path) -> None:
    words = command("view", path, "--no-browser", "--json")
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert told["path"] == str(path)
        assert Asker(told["url"]).get("at/0").body == path.read_bytes()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0


def test_the_page_is_written(tmp_path: Path) -> None:
    target = tmp_path / "viewer.html"
    assert run("view", "--page", target).exit_code == 0
    assert target.read_bytes() == page()
    again = run("view", "--page", target)
    assert (again.exit_code, "there is something already" in again.stderr) == (2, True)


def test_what_cannot_be_shown(tmp_path: Path, path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=np.zeros(3))
    result = run("view", tmp_path / "a.npz", "--no-browser")
    assert result.exit_code == 2
    assert "Convert it: ckptfmt convert" in result.stderr
    assert "[not-found]" in run("view", tmp_path / "none.ckpt").stderr
    assert "Give PATH, or --page" in run("view", path, "--page", "x.html").stderr


def test_a_port_that_is_taken(path: Path) -> None:
    with ckptfmt.viewing.view(path) as view:
        result = run("view", path, "--no-browser", "--port", str(urlsplit(view.url).port))
    assert (result.exit_code, "cannot listen at 127.0.0.1" in result.stderr) == (2, True)
