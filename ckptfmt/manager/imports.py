"""What a save needs, imported before the first one begins.

Elsewhere modules are imported when they are needed. In a manager that would be in its thread, or where a signal handler
may come in between and save, too: who then needs a module that another thread imports, or that the very thread which
the handler interrupted was importing, waits for that for ever, and so does a process that was forked meanwhile.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module

from ..errors import CkptError
from ..format.digests import DIGEST, digest_named
from ..frameworks.adapter import adapters
from ..packages import package
from .options import StepOptions

_ALWAYS = ("pack_writer", "part_writer", "staging", "file", "paged_file", "paging", "packed", "loose")
_SHARING = ("sharing", "shared_packs")
_OF_COMPRESSION = ("numcodecs", "numcodecs.zstd", "numcodecs.blosc")
_OF_PATCHES = ("ckptfmt.manager.rewriting", "ckptfmt.reading.bases", "ckptfmt.reading.patched")


def import_all(options: StepOptions, *, makes_patches: bool = False) -> None:
    """Import what saves with these options of `ckptfmt.save` need, of the frameworks that are imported now, and what
    makes patches of steps."""
    adapters()
    for name in (*_ALWAYS, *(_SHARING if options.get("share") else ())):
        import_module(f"...layouts.{name}", __name__)
    with suppress(CkptError):  # which saves raise
        digest_named(options.get("digest", DIGEST))
        if options.get("compression") or makes_patches:
            for name in _OF_COMPRESSION:
                package(name, "compression")
    looks = options.get("statistics") or options.get("on_nan") is not None
    for name in (
        *(("ckptfmt.layouts.watch", "ckptfmt.format.stored_statistics", "ml_dtypes") if looks else ()),
        "ckptfmt.save_options",
        "zlib_ng.zlib_ng",
        "numpy.ma",
        *(("ckptfmt.format.planes",) if options.get("compression") or makes_patches else ()),
        *(_OF_PATCHES if makes_patches else ()),
    ):
        import_module(name)
    with suppress(ImportError):  # which saves that need it raise
        if options.get("compression"):
            import_module("zstandard")
