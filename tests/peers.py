"""Packages that tests compare with and a machine may lack, as torch is lacking where it has no small build."""

from __future__ import annotations

from importlib import import_module
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
