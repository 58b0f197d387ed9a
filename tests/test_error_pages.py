"""docs/errors.md is what its generator writes, and has every code, with calls that exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest
from error_table import DOCS, TABLE, load_generator
from peers import peer

import ckptfmt
from ckptfmt.cli.overview import COMMANDS
from ckptfmt.errors import CODES

ckptfmt_torch = peer("ckptfmt_torch")
peer("ckptfmt_torch.recompute")  # which is then an attribute


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    return load_generator()


def test_the_page_is_current(generator: ModuleType) -> None:
    """`python docs/make_errors.py` writes it."""
    assert (DOCS / "errors.md").read_text() == generator.page(CODES, TABLE)


def test_the_page_has_every_code_once(generator: ModuleType) -> None:
    assert set(TABLE) == set(CODES)
    headings = re.findall(r"^### `(.*)`$", (DOCS / "errors.md").read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(CODES)
    assert set(generator.PHASES) == {row.phase for row in CODES.values()}


@pytest.mark.parametrize("code", CODES)
def test_an_entry(generator: ModuleType, code: str) -> None:
    entry = TABLE[code]
    assert set(entry) == {"cause", "calls"}
    assert entry["cause"].endswith(".")
    assert entry["cause"] not in CODES[code].meaning
    for call in generator.calls_of(entry):
        name = re.split(r"[(\[]", call)[0]
        if name.startswith("ckptfmt "):
            assert name.split()[1] in COMMANDS
            continue
        home, _, method = name.removeprefix("ckptfmt_torch.").removeprefix("ckptfmt_jax.").partition(".")
        places = (ckptfmt_torch, ckptfmt) if name.startswith("ckptfmt_torch.") else (ckptfmt, ckptfmt_torch)
        found = next(getattr(place, home) for place in places if hasattr(place, home))
        assert not method or hasattr(found, method)
        for option in re.findall(r"(\w+)=", call):
            assert option in source_of(found, method), call


def source_of(found: object, method: str) -> str:
    """The module in which a call is defined, which names its options."""
    call = getattr(found, method) if method else found
    module = importlib.import_module(call.__module__)
    assert module.__file__ is not None
    return Path(module.__file__).read_text()
