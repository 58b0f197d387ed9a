"""The cases of docs/spec/signatures.md, which other implementations can use: what we say of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from spec_text import ROOT, SIGNATURES, STATEMENT

import ckptfmt
from ckptfmt.errors import SignatureError
from ckptfmt.reading.checkpoint import StoredCheckpoint
from ckptfmt.signing import signature

CASES = json.loads((ROOT / "conformance" / "signatures.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_what_we_say(tmp_path: Path, case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint is a real one, whose manifest is taken for that of the case."""
    ckptfmt.save(tmp_path / "c", {"w": np.zeros(3)}, digest=case["digest"])
    (tmp_path / "c.sig").write_text(case["signature"])
    monkeypatch.setattr(StoredCheckpoint, "manifest_sha256", case["manifest"])
    trust = [text.encode() for text in case["trust"]]
    try:
        found = signature.verify_signature(tmp_path / "c", trust)
    except SignatureError as error:
        assert error.code == case["expected"]
    else:
        assert (case["expected"], found.form) == ("accepted", "ckptfmt")


def test_the_cases_cite_statements_and_bring_about_every_code() -> None:
    known = {identity for identity, _ in STATEMENT.findall(SIGNATURES.read_text())}
    assert {identity for case in CASES for identity in case["spec"]} <= known
    codes = {"accepted", "bad-signature", "other-checkpoint", "untrusted-key", "weak-digest"}
    assert {case["expected"] for case in CASES} == codes
    assert len({case["name"] for case in CASES}) == len(CASES)
