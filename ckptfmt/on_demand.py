"""Packages whose public names are imported at their first use, so that a program pays for what it uses alone."""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from types import MappingProxyType

TYPE_CHECKING = False  # typing takes a fifth of the time in which Python starts
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType
    from typing import Any


def exports(
    package: str, homes: Mapping[str, str], former: Mapping[str, str] = MappingProxyType({})
) -> Callable[[str], Any]:
    """The `__getattr__` of a package: of each public name, the module below the package that has it; of each name that
    an earlier version published, its name of today, which a DeprecationWarning says."""

    def find(name: str) -> Any:
        if name in former:
            from .deprecated import warn_deprecated

            warn_deprecated(f"{package}.{name}", f"{package}.{former[name]}")
            return getattr(sys.modules[package], former[name])
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = _imported(f".{homes[name]}", package)
        value = home if name == homes[name] else getattr(home, name)
        setattr(sys.modules[package], name, value)
        return value

    return find


def _imported(name: str, package: str) -> ModuleType:
    """A module, without looks for cycles among what importing it makes: they would take as long as a third of it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return import_module(name, package)
    finally:
        if was_enabled:
            gc.enable()
