"""Packages that not everybody requires: what brings each, and what is said where one is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from .errors import CkptError, fault

# a package, and what pip installs it with
INSTALLED_BY: dict[str, str] = {
    "accelerate": "ckptfmt[transformers]",
    "adlfs": "ckptfmt[az]",
    "aiohttp": "ckptfmt[http]",
    "blake3": "ckptfmt[blake3]",
    "checkpoint_schedules": "ckptfmt[recompute]",
    "click": "ckptfmt[cli]",
    "cryptography": "ckptfmt[sign]",
    "fsspec": "ckptfmt[remote]",
    "gcsfs": "ckptfmt[gs]",
    "google_crc32c": "ckptfmt[tensorflow]",
    "gguf": "ckptfmt[gguf]",
    "h5py": "ckptfmt[hdf5]",
    "hypothesis": "hypothesis",
    "jax": "ckptfmt[jax]",
    "lightning": "ckptfmt[lightning]",
    "lz4": "ckptfmt[lz4]",
    "matplotlib": "matplotlib",
    "obstore": "ckptfmt[obstore]",
    "pandas": "pandas",
    "peft": "peft",
    "pytest": "pytest",
    "rich": "ckptfmt[cli]",
    "s3fs": "ckptfmt[s3]",
    "tenacity": "ckptfmt[remote]",
    "tensorstore": "ckptfmt[orbax]",
    "torch": "ckptfmt[torch]",
    "transformers": "ckptfmt[transformers]",
    "vllm": "vllm",
    "zarr": "ckptfmt[zarr]",
    "zstandard": "ckptfmt[weights]",
}
# the package behind the URLs of a protocol, by fsspec
BEHIND: dict[str, str] = {
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "adlfs"),
    **dict.fromkeys(("http", "https"), "aiohttp"),
}


def install(name: str) -> str:
    """The command that installs a package."""
    what = INSTALLED_BY.get(name.partition(".")[0], name)
    return f"pip install '{what}'" if "[" in what else f"pip install {what}"


def package(name: str, what: str) -> Any:
    """The module of a package, which `what` requires; raises `missing-package` with the command that installs it."""
    try:
        return import_module(name)
    except Exception as error:  # one that is there and fails must not look like a fault of what is read with it
        raise missing(what, error, name) from error


def missing(what: str, error: Exception, name: str) -> CkptError:
    """The exception where `what` requires the package `name`, and it or one that it requires cannot be imported."""
    absent = getattr(error, "name", None) or name
    if isinstance(error, ImportError) and absent.partition(".")[0] == name.partition(".")[0]:
        return fault("missing-package", f"{what} requires the package {name}", advice=f"Install it: {install(name)}")
    said = error if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
    message = f"{what} requires the package {name}, which cannot be imported: {said}"
    return fault("missing-package", message, advice=f"Install it anew: {install(name)}")


@contextmanager
def required_by(module: str) -> Iterator[None]:
    """Imports of packages without which a module that a program imports is of no use: the error names what brings
    them."""
    try:
        yield
    except ImportError as error:
        name = (error.name or "").partition(".")[0]
        if name not in INSTALLED_BY:
            raise
        raise ModuleNotFoundError(f"{module} requires the package {name}: {install(name)}", name=error.name) from error


def is_there(name: str) -> bool:
    """Whether a package can be found, which is not imported for that."""
    from importlib.util import find_spec  # here, as reading a slice needs none of it

    return find_spec(name) is not None


def missing_for(protocol: str, engine: str, error: ImportError | None = None) -> CkptError:
    """The exception where something is missing to reach the URLs of a protocol through an engine: all that is."""
    behind = engine if engine == "obstore" else BEHIND.get(protocol)
    absent = [name for name in ("tenacity", behind) if name is not None and not is_there(name)]
    packages = f"package{'s' * (len(absent) > 1)} {' and '.join(absent)}"
    lack = f"requires the {packages}" if absent else f"cannot be used: {error}"
    return fault("missing-package", f"{protocol}:// {lack}", advice=f"Install it: {install(behind or 'tenacity')}")
