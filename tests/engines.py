"""A program that converts, verifies and cleans a folder on a cluster: `python engines.py dask|ray FOLDER`. It prints
what became of each checkpoint, as JSON. A process of its own, as both engines warn, and leave threads behind."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ckptfmt


@contextmanager
def dask() -> Iterator[Executor]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
        client.get_executor() as executor,
    ):
        yield executor


@contextmanager
def ray() -> Iterator[Executor]:
    import ray

    class OnRay(Executor):
        def submit(self, call: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
            found: Future[Any] = ray.remote(call).remote(*arguments, **options).future()
            return found

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        yield OnRay()
    finally:
        ray.shutdown()


def main(engine: str, folder: Path) -> None:
    with {"dask": dask, "ray": ray}[engine]() as executor:
        outcomes = ckptfmt.convert_each(folder / "source", folder / "target", executor=executor)
        report = ckptfmt.verify_folder(folder / "target", executor=executor)
        garbage = executor.submit(ckptfmt.gc, str(folder / "target")).result()
    said = {
        "converted": {Path(one.target).name: one.error.code if one.error else "" for one in outcomes},
        "told": [str(one.error) for one in outcomes if one.error],
        "verified": {Path(one.path).name: one.ok for one in report.reports},
        "garbage": len(garbage.found),
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
