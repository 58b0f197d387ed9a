"""Names and values that would be scripts, or that are very long, in pages and in what notebooks show. [SEC-005]"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from attack import OPENED, attempt, folder, hostile

import ckptfmt
import ckptfmt.reporting.report

SCRIPT = "</script><script>alert(1)</script><img src=x onerror=alert(1)>'\"--><!--&lt;\u2028\u202e"
LONG = 200_000
DATA = '<script type="application/json" id="data">'


def page(path: Path) -> None:
    check(ckptfmt.report(path, spectrum="**").html)
    check(ckptfmt.report(path, path).html)


def check(text: str) -> None:
    """The page has its own four scripts alone, and its data are JSON without a character that could end it."""
    assert len(re.findall(r"<script\b", text)) == 4
    data = text.partition(DATA)[2].partition("</script>")[0]
    assert not set("<>&\u2028") & set(data)
    assert isinstance(json.loads(data), dict)
    assert len(text) < 2_000_000
    assert "<img" not in text.partition("<script")[0]


def notebook(path: Path) -> None:
    with ckptfmt.open(path) as checkpoint:
        forms: list[Any] = [checkpoint, *checkpoint.values(), ckptfmt.diff(path, path), ckptfmt.verify(path)]
        for one in forms:
            text = one._repr_html_()
            assert len(text) < 100_000
            assert not re.findall(r"<(?!/?(?:div|strong|table|thead|tbody|tr|th|td)\b)", text)


def named(*names: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        document["tree"] = ["dict", list(names), [["tensor", 0], ["tensor", 1], *names[2:]]]
        document["metadata"] = ["dict", list(names), list(names)]
        document["generator"] = names[0]

    return change


def main() -> None:
    with folder() as here:
        attacks = {
            "scripts": named(SCRIPT, f"{SCRIPT}.0.{SCRIPT}", SCRIPT + "2"),
            "long": named("x" * LONG, "y" * LONG, "z" * LONG),
            "periods": named("." * LONG, "a" + "/0." * LONG),
            "numbers": named(*("1." * LONG + end for end in "ab")),
        }
        for name, change in attacks.items():
            path = hostile(here / f"{name}.ckpt", change)
            attempt(name, path, OPENED, actions=(page, notebook))
        deep: Any = 1
        for _ in range(60):
            deep = {SCRIPT: deep, "": [deep, 10**3000]} if isinstance(deep, int) else {SCRIPT: deep}
        ckptfmt.save(
            here / "deep.ckpt",
            {"w": np.ones((2, 2)), "deep": deep},
            metadata={"x": deep, "y": 1 << 100_000},
            durable=False,
        )
        attempt("deep and huge", here / "deep.ckpt", OPENED, actions=(page, notebook))


if __name__ == "__main__":
    main()
