"""Packages of other formats, imported when a conversion needs them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..errors import fault


def package(name: str, extra: str) -> Any:
    """The module `name`; raises `missing-package` with the command that installs it."""
    try:
        return import_module(name)
    except ImportError as error:
        command = f"pip install 'ckptfmt[{extra}]'"
        raise fault("missing-package", f"this format needs the package {name}: {command}") from error
