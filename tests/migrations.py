"""What the tests of migrations share: documents, checkpoints with a schema, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptfmt
from ckptfmt import CkptError


def document(*rules: Any, start: str = "1", end: str = "2", **more: Any) -> dict[str, Any]:
    return {"ckptfmt_migration": 1, "schema": "s", "from": start, "to": end, "rules": list(rules), **more}


def saved(folder: Path, tree: Any, name: str = "src", **options: Any) -> Path:
    ckptfmt.save(folder / name, tree, schema=("s", "1"), durable=False, overwrite=True, **options)
    return folder / name


def migrated(folder: Path, tree: Any, *rules: Any, **more: Any) -> Any:
    """What a document with these rules makes of a tree."""
    with ckptfmt.open(saved(folder, tree), schema="2", migrations=document(*rules, **more)) as view:
        return view.load()


def refusal(code: str, call: Any, *arguments: Any, **options: Any) -> CkptError:
    with pytest.raises(CkptError) as raised:
        call(*arguments, **options)
    assert raised.value.code == code
    return raised.value


def faults(folder: Path, tree: Any, *rules: Any, **more: Any) -> tuple[str, ...]:
    error = refusal("migration-mismatch", migrated, folder, tree, *rules, **more)
    assert "s: 1 → 2" in str(error)
    return tuple(error.report)


W = np.arange(6, dtype=np.float32).reshape(2, 3)
X = np.arange(4, dtype=np.int32)
