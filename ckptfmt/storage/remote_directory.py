"""Saving a directory of objects to an object store (SPEC.md section 11, PUB-009 and PUB-012 to PUB-017).

A directory cannot appear in one step, so a writer claims it first: whoever creates its `CLAIM` has it to itself. Then
come data, part manifests and manifest, and with `COMMIT` the checkpoint exists. Small objects are sent by several
threads.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections import deque

from ..errors import CkptError, ExistsError, fault, os_fault
from ..threads import Call, Pool
from . import CLAIM, COMMIT, IN_FLIGHT, MANIFEST, Storage
from .engine import Engine, storage_fault
from .exclusive import check_exclusive, settle
from .remote import RemoteStorage
from .upload import RemoteObject, check_name

SENDERS = 8  # small objects under way at a time


class RemoteDirectory:
    """An attempt at a directory, by the process that claims it or by one that joins."""

    def __init__(
        self, engine: Engine, key: str, path: str, claim: bytes, *, owner: bool, in_flight: int = IN_FLIGHT
    ) -> None:
        self.path = path
        self._engine, self._key, self._claim, self._owner = engine, key.rstrip("/"), claim, owner
        # two packs at a time, or one large chunk and `SENDERS` small ones, each smaller than a part
        self._in_flight = in_flight // 2
        self._objects: list[RemoteObject] = []
        self._commit: RemoteObject | None = None
        self._sending: deque[Call[None]] = deque()
        self._senders: Pool | None = None
        self._is_commit_sent = False

    @classmethod
    def begin(
        cls, engine: Engine, key: str, path: str, *, overwrite: bool, in_flight: int = IN_FLIGHT
    ) -> RemoteDirectory:
        """Claim a directory in which there is nothing; raises `exists`, `not-replaceable` or
        `exclusive-unsupported`. [PUB-012]"""
        check_name(key, path)
        attempt = cls(engine, key, path, new_claim(), owner=True, in_flight=in_flight)
        try:
            check_exclusive(engine, key, path, "layout 'file' with overwrite=True, where only one process saves")
            attempt._take(overwrite)
        except Exception as error:
            raise storage_fault(error, "cannot reach the folder to save into", path) from error
        return attempt

    @classmethod
    def join(cls, engine: Engine, key: str, path: str, token: str, *, in_flight: int = IN_FLIGHT) -> RemoteDirectory:
        """The attempt of another process, by the word that its `share` gave."""
        return cls(engine, key, path, token.encode(), owner=False, in_flight=in_flight)

    def _take(self, overwrite: bool) -> None:
        self._refuse(self._there(), overwrite)

        def claim() -> None:
            self._engine.put(self._inside(CLAIM), self._claim, exclusive=True)

        def is_ours() -> bool | None:
            found = self._found_claim()
            return None if found is None else found == self._claim

        settle(claim, is_ours, "cannot claim the directory", self.path, exclusive=True)
        try:  # another save may have ended between the look and the claim
            self._refuse(self._there() - {self._inside(CLAIM)}, overwrite)
        except BaseException:
            with contextlib.suppress(Exception):
                self._engine.delete(self._inside(CLAIM))
            raise

    def _there(self) -> set[str]:
        """The keys of all objects in the directory, and its own, if that is one."""
        found = {entry.key for entry in self._engine.entries(self._key)}
        with contextlib.suppress(FileNotFoundError):
            self._engine.head(self._key)
            found.add(self._key)
        return found

    def _refuse(self, there: set[str], overwrite: bool) -> None:
        """Raise if there is anything. [PUB-012] [PUB-014]"""
        if not there:
            return
        if overwrite and (self._inside(COMMIT) in there or self._key in there):
            message = "a directory on an object store cannot take a checkpoint's place in one step; layout 'file' can"
            raise fault("not-replaceable", message, path=self.path)
        if self._inside(COMMIT) not in there and self._inside(CLAIM) in there:
            said = (self._found_claim() or b"").decode(errors="replace").strip()
            message = f"another save is writing here, or has died: its claim is {said!r}"
            raise fault("exists", message, path=self.path)
        raise fault("exists", "there is something at this path already", path=self.path)  # [PUB-003]

    def _found_claim(self) -> bytes | None:
        try:
            return self._engine.tail(self._inside(CLAIM), 255)[1]
        except FileNotFoundError:
            return None

    def create(self, name: str) -> RemoteObject:
        if name in (MANIFEST, COMMIT):
            self.flush()  # the order of [PUB-009]
        made = RemoteObject(
            self._engine,
            self._inside(name),
            self.path,
            exclusive=name == COMMIT,
            in_flight=self._in_flight,
            finished=self._finished,
        )
        if name == COMMIT:
            self._commit = made
        else:
            self._objects.append(made)
        return made

    def _finished(self, made: RemoteObject) -> None:
        """Let an object appear; `COMMIT` waits for `publish`."""
        if made is self._commit:
            return
        if not made.is_small:
            made.complete()
            return
        if len(self._sending) == SENDERS:
            self._sending.popleft().result()
        if self._senders is None:
            self._senders = Pool(SENDERS, "ckptfmt-upload")
        self._sending.append(self._senders.submit(made.complete))

    def link(self, name: str, storage: Storage, source: str, size: int) -> str:
        """Stores have no links; they copy by themselves. It stands below the claim as what is sent does. [PUB-009]"""
        if not isinstance(storage, RemoteStorage) or storage.engine.name != self._engine.name:
            return "it is not in the store that is saved to"
        key = self._inside(name)
        try:
            self._engine.copy(storage.place(source), key)
            copied = self._engine.head(key).size
        except NotImplementedError:
            return "this store makes no copies by itself"
        except Exception as error:
            self.remove(name)
            return f"the store does not copy it: {error!s:.200}"
        if copied != size:
            self.remove(name)
            return f"{source} has {copied} bytes and not {size}"
        return ""

    def remove(self, name: str) -> None:
        with contextlib.suppress(Exception):  # what stays goes with the claim, if this fails, or is passed over
            self._engine.delete(self._inside(name))

    def share(self, folders: list[str]) -> str:
        """Stores have no folders to make."""
        return self._claim.decode()

    def flush(self) -> None:
        """Wait until every object is there."""
        self._end_senders()
        while self._sending:
            self._sending.popleft().result()

    def written(self) -> Storage:
        """With `COMMIT`, which waits in memory."""
        assert self._commit is not None
        self.flush()
        return RemoteStorage.before_commit(self._engine, self._key, self.path, self._commit.waiting)

    def fault(self, error: OSError | CkptError, doing: str) -> CkptError:
        return error if isinstance(error, CkptError) else os_fault(error, doing, self.path)

    def _end_senders(self, *, cancel: bool = False) -> None:
        for made in self._sending if cancel else ():
            made.cancel()
        if self._senders is not None:
            self._senders.close()
            self._senders = None

    def publish(self) -> None:
        assert self._commit is not None
        self.flush()
        self._check_claim()  # [PUB-013]
        self._is_commit_sent = True
        self._commit.complete()
        try:
            self._check_claim()  # [PUB-016]
        except ExistsError:
            with contextlib.suppress(Exception):
                self._engine.delete(self._commit.key)
            raise
        with contextlib.suppress(Exception):  # a claim beside COMMIT means nothing
            self._engine.delete(self._inside(CLAIM))

    def _check_claim(self) -> None:
        """Raise if the directory was taken from this save."""
        try:
            found = self._found_claim()
        except Exception as error:
            raise storage_fault(error, "cannot read the claim", self.path) from error
        if found != self._claim:
            message = "the claim of this save was removed meanwhile, so it is not committed"
            raise fault("exists", message, path=self.path)

    def abort(self) -> None:
        self._end_senders(cancel=True)
        if self._is_commit_sent:  # it may be there, whatever was heard of it [PUB-015]
            return
        with contextlib.suppress(Exception):
            if self._found_claim() != self._claim:
                return  # others may be writing here
            for made in self._objects:
                made.close()
            mine = (
                [entry.key for entry in self._engine.entries(self._key)]
                if self._owner
                else [made.key for made in self._objects]
            )
            for key in mine:
                if key != self._inside(CLAIM):
                    with contextlib.suppress(FileNotFoundError):
                        self._engine.delete(key)
            if self._owner:
                self._engine.delete(self._inside(CLAIM))

    def _inside(self, name: str) -> str:
        return f"{self._key}/{name}"


def new_claim() -> bytes:
    """A line that tells this save from all others, and says when it began. [PUB-012]"""
    began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return f"ckptfmt-claim/1 {secrets.token_hex(16)} {began}\n".encode()


is_claim = re.compile(rb"ckptfmt-claim/1 \S+ \S+\n").fullmatch
