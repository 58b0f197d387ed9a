"""`python -m benchmarks.remote`: loads from an S3 server on this machine beside plain parallel gets of the same bytes.

Both sides use one client library, the same requests (16 MiB) and as many at a time, in turns within one run; ckptfmt
verifies every block on top and builds the tree. They are measured in new processes, which is how a program restores,
and again and again in one process: there plain gets are given memory that the process has had before, while the arrays
of a load are new, so that the system clears their pages; and `into=` the arrays of an earlier load. Then the bytes of
a 1 % slice, counted where the server sends them, and the memory of a save and a load. The server is moto's, in a
process of its own, and limits both sides. By itself it copies a whole object for each request, which would measure the
number of requests alone; here it keeps that copy.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

import ckptfmt
from benchmarks.memory import touch
from ckptfmt.storage import IN_FLIGHT
from ckptfmt.storage.engine import MOST_REQUESTS
from ckptfmt.storage.remote import READERS, SPAN, RemoteStorage

ENGINES = ("fsspec", "obstore")
MB = 1e6
NEEDED = 0.95  # of the throughput of plain gets
BLOCK = 4 << 20
SERVER = """
import json, logging, sys, time
from moto.s3.models import FakeKey
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

logging.getLogger("werkzeug").setLevel(logging.ERROR)
backend, sent = DomainDispatcherApplication(create_backend_app), [0, 0]

whole = FakeKey.value

def kept(key):
    if "copy" not in vars(key):
        vars(key)["copy"] = whole.fget(key)
    return vars(key)["copy"]

FakeKey.value = property(kept, whole.fset)

def app(environ, start_response):
    if environ["PATH_INFO"] == "/count":
        start_response("200 OK", [])
        answer, sent[:] = json.dumps(sent).encode(), [0, 0]
        return [answer]
    time.sleep(float(sys.argv[1]))
    parts = list(backend(environ, start_response))
    sent[0] += 1
    sent[1] += sum(map(len, parts))
    return parts

server = make_server("127.0.0.1", 0, app, threaded=True)
print(server.server_port, flush=True)
server.serve_forever()
"""
MEMORY = """
import json, sys
import numpy as np
import ckptfmt
from benchmarks.memory import Meter
from ckptfmt.frameworks.sources import Lazy

class Zeros(Lazy):
    dtype = np.dtype(np.float32)

    def __init__(self, elements):
        self.shape = (elements,)

    def __getitem__(self, region):
        return np.zeros(region[0].stop - region[0].start, np.float32)

action, url, elements, options = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
ckptfmt.save(url + "-warm", 1, overwrite=True, storage_options=options)
ckptfmt.load(url + "-warm", storage_options=options)
with Meter() as meter:
    if action == "save":
        ckptfmt.save(url + "-lazy", {"w": Zeros(elements)}, storage_options=options)
    else:
        ckptfmt.load(url, storage_options=options)
print(meter.spell.resident_rise - (4 * elements if action == "load" else 0))
"""

NEW_PROCESS = """
import sys
from benchmarks.remote import sides, timed

engine, endpoint, key, size, name = *sys.argv[1:4], int(sys.argv[4]), sys.argv[5]
sides(engine, endpoint, key + "-warm", 10)[name]()
print(timed(sides(engine, endpoint, key, size)[name], size))
"""


@contextlib.contextmanager
def server(latency: float = 0.0) -> Iterator[str]:
    """The endpoint of a server in a process of its own, which answers after `latency` seconds."""
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(latency)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait()


def options_of(engine: str, endpoint: str) -> dict[str, Any]:
    """What `storage_options=` is."""
    if engine == "fsspec":
        return {"endpoint_url": endpoint, "key": "test", "secret": "test"}
    keys = {"access_key_id": "test", "secret_access_key": "test", "region": "us-east-1"}
    return {"engine": "obstore", "endpoint": endpoint, "client_options": {"allow_http": True}, **keys}


def getter(engine: str, endpoint: str) -> Callable[[str, int, int], Any]:
    """A plain get of a range of an object in the bucket, by the library of the engine."""
    options = options_of(engine, endpoint)
    if engine == "fsspec":
        import fsspec

        fs = fsspec.filesystem("s3", **options)
        return lambda key, start, end: fs.cat_file(f"bucket/{key}", start=start, end=end)
    import obstore
    from obstore.store import from_url

    del options["engine"]
    store = from_url("s3://bucket", **options)
    return lambda key, start, end: obstore.get_range(store, key, start=start, end=end)


def plain_gets(get: Callable[[str, int, int], Any], key: str, size: int) -> list[Any]:
    """All bytes of an object in memory, by as many requests at a time as a load makes, of the same length."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(lambda start: get(key, start, min(start + SPAN, size)), range(0, size, SPAN)))


def sides(engine: str, endpoint: str, key: str, size: int) -> dict[str, Callable[[], Any]]:
    """What is compared, for a checkpoint of `size` bytes in the bucket."""
    return {
        "gets": partial(plain_gets, getter(engine, endpoint), key, size),
        "load": partial(ckptfmt.load, f"s3://bucket/{key}", storage_options=options_of(engine, endpoint)),
    }


def in_new_process(engine: str, endpoint: str, key: str, size: int, name: str) -> float:
    """Seconds of one side in a process of its own, which has made one request before."""
    arguments = [engine, endpoint, key, str(size), name]
    done = subprocess.run([sys.executable, "-c", NEW_PROCESS, *arguments], capture_output=True, text=True, check=True)
    return float(done.stdout)


def in_turns(measures: Mapping[str, Callable[[], float]], rounds: int, size: int) -> tuple[list[str], float]:
    """MB/s of both sides and the ratio with its spread, as cells, and the ratio."""
    times: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(rounds + 1):
        for name in sorted(measures, reverse=bool(number % 2)):
            times[name].append(measures[name]())
    gets, load = (spent[1:] for spent in times.values())
    ratios = [plain / verified for plain, verified in zip(gets, load, strict=True)]
    ratio = statistics.median(ratios)
    rates = [f"{size / MB / statistics.median(spent):.0f}" for spent in (gets, load)]
    return [*rates, f"{ratio:.2f} ({min(ratios):.2f}–{max(ratios):.2f})"], ratio


def timed(call: Callable[[], Any], size: int) -> float:
    """Seconds of a call whose result has `size` bytes, of memory that the machine has at hand."""
    touch(2 * size)
    start = time.perf_counter()
    kept = call()
    seconds = time.perf_counter() - start
    del kept
    return seconds


def counted(endpoint: str) -> tuple[int, int]:
    """Requests answered, and bytes sent, since the last call."""
    with urllib.request.urlopen(f"{endpoint}/count") as answer:
        requests, sent = json.loads(answer.read())
    return requests, sent


def tree_of(megabytes: int) -> dict[str, Any]:
    """Eight large tensors and some small ones."""
    random = np.random.default_rng(0)
    rows = megabytes * 1_000_000 // 8 // 4096
    layers = [random.random((rows, 1024), np.float32) for _ in range(8)]
    return {"layers": layers, "norms": [np.ones(1024, np.float32) for _ in range(64)], "step": 1000}


def memory(action: str, url: str, elements: int, options: dict[str, Any]) -> float:
    """MB beyond the tree, of a process of its own."""
    arguments = [action, url, str(elements), json.dumps(options)]
    done = subprocess.run([sys.executable, "-c", MEMORY, *arguments], capture_output=True, text=True, check=True)
    return int(done.stdout) / MB


def small_tensors(count: int, latency: float, rounds: int) -> Table:
    """Loads of many small tensors: one request at a time, and as many as a load makes, also like a template."""
    table = Table(title=f"load of {count:,} tensors of 4 KiB; each request takes {1000 * latency:.0f} ms more")
    for heading in ("engine", "requests", "one at a time, s", "many at a time, s", "like=, s"):
        table.add_column(heading)
    tree = {f"layer{number}": np.full(1024, number, np.float32) for number in range(count)}
    with server(latency) as endpoint:
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/bucket", method="PUT")).close()
        for engine in ENGINES:
            url, options = f"s3://bucket/{engine}.ckpt", options_of(engine, endpoint)
            report = ckptfmt.save(url, tree, overwrite=True, storage_options=options)
            seconds = []
            for room, like in ((1, None), (IN_FLIGHT, None), (IN_FLIGHT, tree)):  # one byte has room for one request
                load = partial(ckptfmt.load, url, like=like, storage_options=options, max_bytes_in_flight=room)
                load()
                counted(endpoint)
                seconds.append(statistics.median(timed(load, report.bytes) for _ in range(rounds)))
                requests = counted(endpoint)[0] // rounds
            table.add_row(engine, str(requests), *(f"{spent:.2f}" for spent in seconds))
    return table


def growing(megabytes: int, latency: float, rounds: int) -> Table:
    """Loads of tensors of 4 MiB, each a request: 16 at a time all along, and as many as a load makes."""
    table = Table(title=f"load of {megabytes} MB in requests of 4 MiB, each {1000 * latency:.0f} ms longer")
    for heading in ("engine", "16 at a time, s", "more and more, s", "ratio (least–greatest)"):
        table.add_column(heading)
    tree = [np.full(1 << 20, number, np.float32) for number in range(megabytes // 4)]
    with server(latency) as endpoint:
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/bucket", method="PUT")).close()
        size = ckptfmt.save("s3://bucket/x.ckpt", tree, storage_options=options_of("obstore", endpoint)).bytes
        tree.clear()
        for engine in ENGINES:
            load = partial(ckptfmt.load, "s3://bucket/x.ckpt", storage_options=options_of(engine, endpoint))
            times: dict[int, list[float]] = {READERS: [], MOST_REQUESTS: []}
            for number in range(rounds + 1):
                for most in sorted(times, reverse=bool(number % 2)):
                    RemoteStorage.most_readers = most
                    times[most].append(timed(load, size))
            few, more = (spent[1:] for spent in times.values())
            ratios = [before / now for before, now in zip(few, more, strict=True)]
            spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
            table.add_row(engine, f"{statistics.median(few):.1f}", f"{statistics.median(more):.1f}", spread)
    return table


@click.command(help=__doc__)
@click.option("--small", default=0, help="Instead, load so many small tensors.")
@click.option("--growing", "grows", default=0, help="Instead, load so many MB from a server with a latency.")
@click.option("--latency", default=30.0, show_default=True, help="Of the server, for these, in milliseconds.")
@click.option("--megabytes", default=512, show_default=True, help="Size of the checkpoint.")
@click.option("--rounds", default=7, show_default=True, help="Turns of each side.")
def main(small: int, grows: int, latency: float, megabytes: int, rounds: int) -> None:
    if grows:
        Console().print(growing(grows, latency / 1000, rounds))
        return
    if small:
        Console().print(small_tensors(small, latency / 1000, rounds))
        return
    tree = tree_of(megabytes)
    speed = Table(title=f"verified load of {megabytes} MB beside plain gets; ratio > 1: ckptfmt is faster")
    for heading in ("engine", "process", "gets MB/s", "load MB/s", "ratio (least–greatest)", f"≥ {NEEDED}"):
        speed.add_column(heading)
    rest = Table(title="1 % slice as the server sends it, requests to open, memory beyond the tree")
    for heading in ("engine", "slice bytes", "allowed", "requests to open", "save MB", "load MB"):
        rest.add_column(heading)
    with server() as endpoint:
        for engine in ENGINES:
            options = options_of(engine, endpoint)
            make = urllib.request.Request(f"{endpoint}/bucket", method="PUT")
            urllib.request.urlopen(make).close()
            url = f"s3://bucket/{engine}.ckpt"
            report = ckptfmt.save(url, tree, overwrite=True, storage_options=options)
            ckptfmt.save(f"{url}-warm", 1, overwrite=True, storage_options=options)
            key, size = f"{engine}.ckpt", report.bytes
            here = {name: partial(timed, call, size) for name, call in sides(engine, endpoint, key, size).items()}
            apart = {name: partial(in_new_process, engine, endpoint, key, size, name) for name in here}
            target = ckptfmt.load(url, storage_options=options)
            again = partial(ckptfmt.load, url, into=target, storage_options=options)
            into = {**here, "load": partial(timed, again, size)}
            for where, measures in (("a new one each", apart), ("one for all", here), ("one for all, into=", into)):
                cells, ratio = in_turns(measures, rounds, size)
                speed.add_row(engine, where, *cells, "yes" if ratio >= NEEDED else "missed")

            counted(endpoint)
            with ckptfmt.open(url, storage_options=options) as checkpoint:
                opening, manifest = counted(endpoint)
                rows = tree["layers"][0].shape[0] // 100
                first = checkpoint["layers/0"]
                assert np.array_equal(first[rows : 2 * rows], tree["layers"][0][rows : 2 * rows])
                sent = counted(endpoint)[1]
            allowed = tree["layers"][0].nbytes // 100 + 2 * BLOCK + manifest
            elements = tree["layers"][0].size * 8
            used = [memory(action, url, elements, options) for action in ("save", "load")]
            rest.add_row(
                engine, f"{sent + manifest:,}", f"{allowed:,}", str(opening), *(f"{bytes_:.0f}" for bytes_ in used)
            )
    console = Console()
    console.print(speed)
    console.print(rest)


if __name__ == "__main__":
    main()
