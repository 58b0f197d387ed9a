"""A save by many processes of which each keeps what it has written at a path of its own: the objects of one checkpoint,
scattered over places that no other process need see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from ..format.pages import OBJECT as PAGES
from ..layouts import directory
from ..storage import COMMIT, MANIFEST, SharedAttempt
from ..storage.attempt import LocalAttempt
from ..writing.options import OnNan
from ..writing.request import request
from .coordinator import Coordinator
from .save import ParallelSave


class ScatteredSave(ParallelSave):
    """One save on one rank, into a local directory that gets manifest and record of the whole, and the packs of this
    rank."""

    def __init__(
        self,
        path: str,
        coordinator: Coordinator,
        call: str,
        *,
        statistics: bool = False,
        on_nan: OnNan | None = None,
        paged: bool | None = None,
    ) -> None:
        """`call` says what is saved, as the paths of the ranks differ."""
        how: Any = {"layout": "packed", "overwrite": True, "durable": False, "progress": None}
        super().__init__(path, coordinator, statistics=statistics, on_nan=on_nan, paged=paged, **how)
        self._is_called = call

    @property
    def _call(self) -> str:
        return self._is_called

    def write(self, tree: Any, asked: Mapping[str, Any]) -> LocalAttempt:
        """Take part; gives the attempt of this rank, which is to be published or aborted. `asked`: those options of
        `ckptfmt.save` that say what is saved."""
        _, line, *_, manifest, pages = self._all_rounds(lambda: request(tree, **asked))
        attempt = cast(LocalAttempt, self._attempt)
        try:
            if self.rounds.coordinator.rank != 0:
                if pages is not None:
                    directory.put(attempt, PAGES, pages)
                directory.put(attempt, MANIFEST, manifest)
                directory.put(attempt, COMMIT, line)
        except BaseException:
            attempt.abort()
            raise
        return attempt

    def _begin(self) -> str:
        self._attempt = self._own_attempt()
        return ""

    def _join(self, token: str) -> SharedAttempt:
        return self._own_attempt()

    def _own_attempt(self) -> LocalAttempt:
        attempt = LocalAttempt(self.path, directory=True, overwrite=True, durable=False)
        attempt.make_folder()
        return attempt

    def _commit(self, messages: list[Any]) -> list[Any]:
        told = super()._commit(messages)
        assert self._attempt is not None
        assert self._draft is not None
        storage = self._attempt.written()
        try:
            names = (MANIFEST, PAGES) if self._draft.paged else (MANIFEST,)
            found = [storage.read(name, 0, storage.size(name)) for name in names]
        finally:
            storage.close()
        return [[*each, *found, *[None] * (2 - len(found))] for each in told]

    def _publish(self, attempt: SharedAttempt) -> None:
        """Each rank does, when it has all that it is to keep."""
