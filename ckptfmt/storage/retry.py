"""Requests that are made again, with growing pauses, and only where that may help."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

TRIES = 5


class Tries:
    """How often this process has made a request again, as far as it is done here and not by a client."""

    again = 0


_FINAL = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)
_PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}
_PASSING_ERRNO = {
    errno.EBUSY,
    errno.EIO,
    errno.ETIMEDOUT,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.ECONNABORTED,
    errno.EPIPE,
    errno.EAGAIN,
}


def may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed later: it was lost on the way, or refused for load."""
    if isinstance(error, _FINAL):
        return False
    status = status_of(error)
    if status is not None:
        return status in _PASSING_STATUS
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _PASSING_ERRNO
    return isinstance(error, ConnectionError | TimeoutError) or type(error).__module__.startswith("aiohttp")


def status_of(error: BaseException | None) -> int | None:
    """The HTTP status that an error, or what it comes from, speaks of."""
    if error is None:
        return None
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        found = getattr(error, "status", None) or getattr(error, "status_code", None)
    return found if isinstance(found, int) else status_of(error.__cause__)


def retried(call: Callable[P, T], when: Callable[[BaseException], bool] = may_pass) -> Callable[P, T]:
    """The call, made again up to `TRIES` times in all while it raises what `when` is true for."""
    wrapped: Callable[P, T] = _retrying(when).wraps(call)
    return wrapped


def _retrying(when: Callable[[BaseException], bool]) -> Any:
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

    return Retrying(
        retry=retry_if_exception(when),
        stop=stop_after_attempt(TRIES),
        wait=wait_random_exponential(multiplier=0.1, max=5.0),
        before_sleep=_count,
        reraise=True,
    )


def _count(_: Any) -> None:
    Tries.again += 1
