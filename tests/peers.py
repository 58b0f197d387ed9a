"""Packages that tests compare with and a machine may lack, as torch is lacking where it has no small build."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NoReturn

import pytest


class Lacking:
    """Stands for a module that is not there: the first test that uses it is skipped, and only that one."""

    def __init__(self, package: str) -> None:
        self.package = package

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__") and name != "__all__":  # what pytest and inspect ask of any object
            raise AttributeError(name)
        pytest.skip(f"{self.package} is not installed", allow_module_level=True)


def peer(module: str) -> Any:
    """A module, or what stands for it where the package that it needs is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("ckptfmt"):
            raise  # our own are never lacking
        return Lacking(error.name.partition(".")[0])


# what the extra `test` has beyond `test-without-torch`, as modules
WITH_TORCH = ("torch", "accelerate", "lightning", "transformers")


@contextmanager
def as_far_as_packages_go() -> Iterator[None]:
    """Skips what comes to a package that `test-without-torch` lacks, itself or in what it calls, where that is not
    installed."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            name = ((isinstance(cause, ModuleNotFoundError) and cause.name) or "").partition(".")[0]
            if name in WITH_TORCH and find_spec(name) is None:
                pytest.skip(f"{name} is not installed")
            cause = cause.__cause__ if cause.__cause__ is not cause else None
        raise
