"""The error tree and the registry of codes (SPEC.md section 16)."""

from __future__ import annotations

import copy
import errno
import pickle
import re
from pathlib import Path

import pytest

import ckptfmt
from ckptfmt.errors import (
    CODES,
    CkptError,
    CorruptError,
    ExistsError,
    InputError,
    LinkedError,
    MismatchError,
    MissingError,
    NotACheckpointError,
    SelectionError,
    SignatureError,
    StorageError,
    UnsupportedError,
    fault,
    os_fault,
)

ROOT = Path(__file__).parent.parent
SOURCES = {path: path.read_text() for path in (ROOT / "ckptfmt").rglob("*.py")}
TESTS = {path: path.read_text() for path in (ROOT / "tests").glob("test_*.py") if path.name != "test_errors.py"}

every_code = pytest.mark.parametrize("code", CODES)

PHASES = {
    "locate": {MissingError, NotACheckpointError, CorruptError},
    "storage": {StorageError},
    "commit": {CorruptError, UnsupportedError},
    "manifest": {CorruptError, UnsupportedError},
    "chunk": {CorruptError, LinkedError},
    "select": {SelectionError, MismatchError, InputError},
    "save": {InputError, ExistsError},
    "recompute": {InputError},
    "migrate": {InputError},
    "sign": {SignatureError, InputError},
    "convert": {InputError, CorruptError, UnsupportedError},
}


@every_code
def test_a_code_s_class_fits_its_phase(code: str) -> None:
    row = CODES[code]
    assert row.error in PHASES[row.phase]
    assert issubclass(row.error, CkptError)


@every_code
def test_meaning_and_advice_are_words_for_people(code: str) -> None:
    row = CODES[code]
    assert re.fullmatch("[a-z]+(-[a-z]+)*", code)
    assert row.meaning[0].islower() or row.meaning.startswith(("I/O", "select="))
    assert row.advice[0].isupper()
    assert not row.meaning.endswith(".")
    assert not row.advice.endswith(".")  # `str` ends the sentence


def test_refused_saves_say_that_nothing_was_written() -> None:  # [TREE-013]
    for code in ("unsupported-leaf", "unsupported-key", "unsupported-dtype", "too-deep"):
        assert "nothing was written" in CODES[code].advice


@every_code
def test_text(code: str) -> None:
    error = fault(code, "what happened", path="a.ckpt", found=1, expected=2)
    assert str(error) == f"a.ckpt: what happened (found 1, expected 2). {CODES[code].advice} [{code}]"
    assert str(fault(code, "what happened")) == f"what happened. {CODES[code].advice} [{code}]"
    assert code in repr(error)


@every_code
def test_errors_survive_pickling(code: str) -> None:
    """As those of worker processes do."""
    error = fault(
        code, "message", path="p", tensor="a/b", chunk=1, block=2, offset=3, found="x", expected="y", report=(4,)
    )
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is CODES[code].error
        assert vars(again) == vars(error)
        assert str(again) == str(error)


def test_classes_are_python_s_own_too() -> None:
    pairs = [
        (InputError, ValueError),
        (MismatchError, InputError),
        (SelectionError, LookupError),
        (MissingError, FileNotFoundError),
        (ExistsError, FileExistsError),
        (StorageError, OSError),
    ]
    for error, parent in pairs:
        assert issubclass(error, parent)
    for error in (NotACheckpointError, CorruptError, UnsupportedError):
        assert error.__bases__ == (CkptError,)


def test_every_class_is_public() -> None:
    for error in {row.error for row in CODES.values()}:
        assert getattr(ckptfmt, error.__name__) is error


ERRNOS = [
    (errno.ENOENT, "not-found"),
    (errno.EACCES, "permission"),
    (errno.EPERM, "permission"),
    (errno.EROFS, "permission"),
    (errno.EEXIST, "exists"),
    (errno.ENOSPC, "disk-full"),
    (errno.EDQUOT, "disk-full"),
    (errno.ENAMETOOLONG, "name-too-long"),
    (errno.EIO, "io"),
    (errno.ESTALE, "io"),
]


@pytest.mark.parametrize(("number", "code"), ERRNOS, ids=[errno.errorcode[number] for number, _ in ERRNOS])
def test_errors_of_the_system(number: int, code: str) -> None:
    found = os_fault(OSError(number, "words of the system"), "cannot do it", "a.ckpt")
    assert (found.code, found.path) == (code, "a.ckpt")
    assert "cannot do it: words of the system" in str(found)
    if isinstance(found, OSError):
        assert found.errno == number
        assert pickle.loads(pickle.dumps(found)).errno == number


@every_code
def test_errno_is_what_the_system_gave_or_nothing(code: str) -> None:
    assert getattr(fault(code, "message"), "errno", None) is None


def test_an_error_of_the_system_without_a_number() -> None:
    assert os_fault(OSError("odd"), "cannot do it", None).code == "io"


# ---- the registry is closed [ERR-001]


def test_codes_in_the_source_are_in_the_registry() -> None:
    used = {code for text in SOURCES.values() for code in re.findall(r"\bfault\(\s*\"([a-z-]+)\"", text)}
    assert used <= CODES.keys()
    assert len(used) > 25


@every_code
def test_a_code_is_raised_somewhere(code: str) -> None:
    elsewhere = "".join(text for path, text in SOURCES.items() if path.name != "error_codes.py")
    mapped = {os_fault(OSError(number, ""), "", None).code for number in errno.errorcode}
    assert f'"{code}"' in elsewhere or code in mapped


@every_code
def test_a_code_is_tested_somewhere(code: str) -> None:
    assert any(f'"{code}"' in text for text in TESTS.values())
