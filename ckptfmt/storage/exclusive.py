"""Who wins when many save at one place of an object store (SPEC.md section 11, PUB-010 and PUB-011)."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable

from ..errors import CkptError, fault
from .engine import Engine, storage_fault
from .retry import may_pass, retried, status_of

PROBE = ".ckptfmt-probe"  # ends the names of the objects by which stores are tried out


def settle(
    act: Callable[[], None], is_ours: Callable[[], bool | None], doing: str, path: str, *, exclusive: bool
) -> None:
    """Make the request that makes an object appear, and find out whether it did. [PUB-010]

    `is_ours` looks what stands in the object's place: None is nothing. After any failure this says who won, not the
    answer to the request, which may have been lost, or be that to a second try. Raises `exists` where an exclusive one
    has lost.
    """

    def once() -> None:
        try:
            act()
        except Exception as error:
            try:
                ours = is_ours()
            except Exception as blind:
                message = f"{doing}, and it cannot be found out whether that took place: {blind}"
                raise storage_fault(error, message, path) from error
            if ours:
                return
            if exclusive and ours is False:
                raise fault("exists", "another save put a checkpoint there first", path=path) from error
            raise

    try:
        retried(once, _is_open)()
    except Exception as error:
        if isinstance(error, CkptError | NotImplementedError):
            raise
        raise storage_fault(error, doing, path) from error


def _is_open(error: BaseException) -> bool:
    """Whether a request that has left nothing may succeed yet: another write that was in its way has failed, too, or it
    was lost."""
    if isinstance(error, CkptError):
        return False
    return isinstance(error, FileExistsError) or status_of(error) == 409 or may_pass(error)


def check_exclusive(engine: Engine, key: str, path: str, instead: str) -> None:
    """Raise `exclusive-unsupported` where the store of a key ignores conditions; `instead` is what to do then. It is
    tried out once in a process for each bucket. [PUB-011]"""
    store = engine.name, key.partition("/")[0]
    if store not in _honouring:
        _honouring[store] = honours(engine, key.rpartition("/")[0], path)
    if not _honouring[store]:
        message = "this store ignores conditional creation, so it cannot be told who saves first"
        raise fault("exclusive-unsupported", message, path=path, expected=instead)


_honouring: dict[tuple[str, str], bool] = {}


def honours(engine: Engine, folder: str, path: str) -> bool:
    """Try a conditional create twice; the second must be refused, and the first bytes stay."""
    probe = f"{folder}/.{secrets.token_hex(8)}{PROBE}".lstrip("/")

    def create(data: bytes) -> None:
        engine.put(probe, data, exclusive=True)

    def is_first() -> bool | None:
        try:
            return engine.tail(probe, 8)[1] == b"first"
        except FileNotFoundError:
            return None

    doing = "cannot try out a conditional creation"
    try:
        settle(lambda: create(b"first"), is_first, doing, path, exclusive=False)
        try:
            retried(create, lambda error: _is_open(error) and not isinstance(error, FileExistsError))(b"second")
            return False
        except FileExistsError:
            return is_first() is True
    except NotImplementedError:
        return False
    finally:
        with contextlib.suppress(Exception):  # it may never have been there
            engine.delete(probe)
