"""`claims.toml`: what the documents say works still stands there, and the test that shows it is still there."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
CLAIMS: dict[str, dict[str, list[str]]] = tomllib.loads((TESTS / "claims.toml").read_text())


@cache
def words_of(document: str) -> str:
    return " ".join((TESTS.parent / document).read_text().split())


@cache
def shown_in(module: str) -> frozenset[str]:
    return frozenset(re.findall(r"^def test_(\w+)\(", (TESTS / f"test_{module}.py").read_text(), re.MULTILINE))


@pytest.mark.parametrize("document", CLAIMS)
def test_what_is_claimed_is_shown(document: str) -> None:
    there = {claim: words_of(document).count(claim) for claim in CLAIMS[document]}
    gone = [claim for claim, count in there.items() if not count]
    assert not gone, "no longer in the document: take the sentence that stands there now, or drop the claim"
    assert not [claim for claim, count in there.items() if count > 1], "in more than one sentence"
    unshown = {
        claim: names
        for claim, names in CLAIMS[document].items()
        if not names or any((name.partition("::")[2] not in shown_in(name.partition("::")[0])) for name in names)
    }
    assert not unshown, "no such tests"
