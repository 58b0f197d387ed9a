"""Finding the base of a patch (SPEC.md section 7.4): among checkpoints, open or not, and those of folders, by the
sha256 of its manifest."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from ..errors import CkptError, StorageError, fault
from ..format.limits import Limits
from ..format.patch import check_sources
from ..layouts import layout_of
from ..storage import COMMIT, TEMPORARY_SUFFIX, is_url, options_at, place_of, storage_for
from ..storage.held import HeldPlace
from .lookup import Lookup
from .view import CheckpointView

if TYPE_CHECKING:
    from ..storage import Place
    from .checkpoint import StoredCheckpoint

    PatchBase: TypeAlias = Place | Lookup[Any] | Iterable[Place | Lookup[Any]] | None
    """Where the base of a patch, and those of a chain of patches, may be; folders are looked through."""

SHOWN = 8  # digests in a message


class Bases(NamedTuple):
    """Candidates, and how those that are not open are opened. `left`: how many patches may still be read one through
    another. `is_asked`: whether the base must be among them."""

    candidates: tuple[Any, ...]
    verify: bool
    limits: Limits
    options: Mapping[str, Any] | None
    follow_links: bool
    left: int
    is_asked: bool

    @classmethod
    def of(
        cls, given: Any, checkpoint: StoredCheckpoint, options: Mapping[str, Any] | None, *, follow_links: bool
    ) -> Bases:
        """What a `base=` means for a checkpoint: None, that its base is looked for beside it, on a disk, and may be
        missing. Raises `bad-option`."""
        if isinstance(given, cls):
            return given
        is_asked = given is not None
        found = map(_candidate, bases_given(given)) if is_asked else _folder_of(checkpoint.path)
        limits = checkpoint.limits
        return cls(tuple(found), checkpoint.verifies, limits, options, follow_links, limits.patches, is_asked)

    def base_of(self, checkpoint: StoredCheckpoint) -> tuple[StoredCheckpoint | None, bool]:
        """The base of a patch, and whether it was opened here; None where it was not asked for, and is missing. Raises
        `wrong-base`, `limit-exceeded`, and what opening it raises. [PATCH-004] [PATCH-005] [PATCH-009]"""
        patch = checkpoint.manifest.patch
        assert patch is not None
        if self.left < 1:
            raise self._too_long(checkpoint)
        try:
            base, is_opened = self._find(patch.base, checkpoint)
        except CkptError as error:
            if self.is_asked or error.code == "limit-exceeded":
                raise
            return None, False
        try:
            check_sources(patch, checkpoint.manifest.specs, base.manifest.specs)
        except BaseException as error:
            if is_opened:
                base.close()
            if isinstance(error, CkptError):
                error.path = error.path or checkpoint.path
            raise
        return base, is_opened

    def _check_length(self, base: StoredCheckpoint) -> None:
        length, found = 1, base
        while found.base is not None:
            length, found = length + 1, found.base
        if length > self.left:
            raise self._too_long(base)

    def _too_long(self, checkpoint: StoredCheckpoint) -> CkptError:
        most = f"at most {self.limits.patches}"
        message = "more patches would be read one through another than the limit is [PATCH-009]"
        return fault("limit-exceeded", message, path=checkpoint.path, expected=most)

    def _find(self, sha256: bytes, checkpoint: StoredCheckpoint) -> tuple[StoredCheckpoint, bool]:
        met: list[str] = []
        failed: CkptError | None = None
        for candidate in self.candidates:
            if isinstance(candidate, CheckpointView):
                found = candidate.stored
                if found.record.sha256 == sha256:
                    self._check_length(found)
                    return found, False
                met.append(found.manifest_sha256)
                continue
            for place in _places(candidate):
                try:
                    other = self._sha256_of(place)
                except CkptError as error:
                    if place == candidate or isinstance(error, StorageError):  # not what else lies in a folder
                        failed = failed or error
                    continue
                if other == sha256:
                    return self._opened(place), True
                met.append(other.hex())
        if failed is not None:
            raise failed
        raise self._wrong(sha256, checkpoint, met)

    def _sha256_of(self, place: str) -> bytes:
        """What identifies the checkpoint at a place, by its commit record alone."""
        storage = storage_for(place, options_at(place, self.options), follow_links=self.follow_links)
        try:
            return layout_of(storage).locate(storage, self.limits).record.sha256
        except CkptError as error:
            error.path = error.path or place
            raise
        finally:
            storage.close()

    def _opened(self, place: str) -> StoredCheckpoint:
        from .checkpoint import StoredCheckpoint

        return StoredCheckpoint(
            place,
            verify=self.verify,
            limits=self.limits,
            storage_options=options_at(place, self.options),
            follow_links=self.follow_links,
            base=self._replace(left=self.left - 1),
        )

    def _wrong(self, sha256: bytes, checkpoint: StoredCheckpoint, met: list[str]) -> CkptError:
        """What was given is not the base."""
        giving = self._giving(sha256)
        advice = f"{giving} is a patch that gives it: write that out first, with ckptfmt apply" if giving else None
        more = f" and {len(met) - SHOWN} more" if len(met) > SHOWN else ""
        return fault(
            "wrong-base",
            "what was given as the base of the patch is another checkpoint [PATCH-004]",
            path=checkpoint.path,
            found=(", ".join(met[:SHOWN]) or "no checkpoint") + more,
            expected=f"the checkpoint whose manifest has the sha256 {sha256.hex()}",
            advice=advice,
        )

    def _giving(self, result: bytes) -> str | None:
        """The path of a candidate that is a patch with this result."""
        from .checkpoint import StoredCheckpoint

        for candidate in self.candidates[:SHOWN]:
            if isinstance(candidate, CheckpointView):
                found = candidate.stored.manifest.patch
            else:
                try:
                    with StoredCheckpoint(candidate, storage_options=options_at(candidate, self.options)) as stored:
                        found = stored.manifest.patch
                except CkptError:  # a folder
                    continue
            if found is not None and found.result == result:
                return str(candidate.path if isinstance(candidate, CheckpointView) else candidate)
        return None


def bases_given(given: PatchBase) -> list[Any]:
    """Each of the bases that a `base=` names, also to be given to several calls."""
    return list(given) if isinstance(given, list | tuple | set | Iterator) else [] if given is None else [given]


def _folder_of(path: str) -> list[str]:
    """The folder on a disk in which a checkpoint lies."""
    is_elsewhere = isinstance(path, HeldPlace) or is_url(path)
    return [] if is_elsewhere else [os.path.dirname(os.path.abspath(path))]


def _candidate(given: Any) -> Any:
    """What is open as it is read, with its names: a `ckptfmt.Checkpoint` shows such a view; or else a place."""
    return getattr(given, "_view", given) if isinstance(given, Lookup) else place_of(given)


def _places(place: str) -> Iterator[str]:
    """A place, or those in it, if it is a folder that is no checkpoint."""
    if is_url(place) or not os.path.isdir(place) or os.path.lexists(os.path.join(place, COMMIT)):
        yield place
        return
    for name in sorted(os.listdir(place)):
        if not name.startswith(".") and not name.endswith(TEMPORARY_SUFFIX):
            yield os.path.join(place, name)
