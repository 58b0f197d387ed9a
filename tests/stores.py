"""Places on object stores, each empty and in a folder of its own: a real S3 server on this machine through both
engines, and fsspec's memory; what is saved there, and a proxy to look on."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import fsspec
import numpy as np
import pytest
import s3

import ckptfmt
from ckptfmt.frameworks.sources import Lazy

LARGE = np.random.default_rng(0).standard_normal((5000, 1000)).astype(np.float32)  # more than one part of an upload
LARGE_TREE = {"model": {"w": LARGE, "b": np.arange(10)}, "step": 7}
TREE = {"model": {"w": LARGE[:50], "b": np.arange(10)}, "step": 7}


class Store(NamedTuple):
    """A URL, `storage_options` for it, and the endpoint, if there is one."""

    url: str
    options: dict[str, Any]
    endpoint: str = ""

    def at(self, name: str) -> Store:
        return self._replace(url=f"{self.url.rpartition('/')[0]}/{name}")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3.serve() as endpoint:
        yield endpoint


@pytest.fixture(params=[*s3.ENGINES, "memory"])
def store(request: pytest.FixtureRequest) -> Store:
    """A place at which nothing is, in a folder of its own."""
    folder = re.sub(r"\W", "_", request.node.name)
    if request.param == "memory":
        fsspec.filesystem("memory").store.clear()
        return Store(f"memory://{folder}/model.ckpt", {})
    endpoint = request.getfixturevalue("endpoint")
    return Store(f"s3://bucket/{folder}/model.ckpt", s3.options(request.param, endpoint), endpoint)


@pytest.fixture(params=s3.ENGINES)
def s3_store(request: pytest.FixtureRequest, endpoint: str) -> Store:
    folder = re.sub(r"\W", "_", request.node.name)
    return Store(f"s3://bucket/{folder}/model.ckpt", s3.options(request.param, endpoint), endpoint)


@pytest.fixture(scope="module")
def proxy(endpoint: str) -> Iterator[s3.Proxy]:
    proxy = s3.Proxy(endpoint)
    yield proxy
    proxy.close()


@contextlib.contextmanager
def watched(store: Store, proxy: s3.Proxy, **more: Any) -> Iterator[tuple[Store, s3.Case]]:
    """The same place through the proxy, and what the proxy sees."""
    engine = store.options.get("engine", "fsspec")
    folder = store.url.split("/")[3]
    yield store._replace(options=s3.options(engine, proxy.endpoint)), proxy.case(folder, **more)
    del proxy.cases[folder]


def save(store: Store, tree: Any = TREE, **more: Any) -> Any:
    return ckptfmt.save(store.url, tree, storage_options=store.options, **more)


def load(store: Store, **more: Any) -> Any:
    return ckptfmt.load(store.url, storage_options=store.options, **more)


def open_(store: Store, **more: Any) -> ckptfmt.Checkpoint:
    return ckptfmt.open(store.url, storage_options=store.options, **more)


def objects(store: Store) -> list[str]:
    """The objects in the folder."""
    if store.endpoint:
        return s3.keys(store.endpoint, store.url.split("/")[3])
    fs, path = fsspec.core.url_to_fs(store.url)
    return [key.rpartition("/")[2] for key in sorted(fs.find(path.rpartition("/")[0]))]


class Failing(Lazy):
    shape, dtype = (3 << 20,), np.dtype(np.float64)  # 24 MiB, more than a part

    def __getitem__(self, region: Any) -> Any:
        if region[0].start > 0:
            raise RuntimeError("gone")
        return np.zeros(region[0].stop - region[0].start)
