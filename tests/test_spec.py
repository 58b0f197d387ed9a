"""SPEC.md and the code say the same: statement ids, error registry, dtype table and worked example.

`python tests/test_spec.py` rewrites the generated parts of SPEC.md (error registry, worked example).
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

import ml_dtypes
import msgpack
import numpy as np
import pytest

import ckptfmt
from ckptfmt.errors import CODES
from ckptfmt.format.casts import cast
from ckptfmt.format.dtypes import DTYPES
from ckptfmt.writing import request

ROOT = Path(__file__).parent.parent
SPEC = ROOT / "SPEC.md"
ID = re.compile(r"\[([A-Z]{2,6}-[0-9]{3})\]")
CITATION = re.compile(r"\b([A-Z]{2,6}-[0-9]{3})\b")


def registry() -> str:
    rows = [f"| `{name}` | {code.phase} | {code.meaning} |" for name, code in CODES.items()]
    return "\n".join(["| code | phase | meaning |", "|---|---|---|", *rows])


def example(folder: Path) -> bytes:
    """The file of the worked example; its generator is fixed, as later versions of the package give the same bytes."""
    weights = np.array([[1, 2], [3, -0.0]], ml_dtypes.bfloat16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request, "__version__", "1.0.0")
        ckptfmt.save(folder / "example.ckpt", {"step": 7, "w": weights})
    return (folder / "example.ckpt").read_bytes()


def loose_record(folder: Path) -> str:
    """The commit record of the worked example in layout `loose`."""
    weights = np.array([[1, 2], [3, -0.0]], ml_dtypes.bfloat16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request, "__version__", "1.0.0")
        ckptfmt.save(folder / "example", {"step": 7, "w": weights}, layout="loose")
    return "\n".join(["```", (folder / "example" / "COMMIT").read_text().strip(), "```"])


def dump(data: bytes) -> str:
    """A hexadecimal dump: offset, sixteen bytes, and what is printable of them."""
    lines = []
    for start in range(0, len(data), 16):
        row = data[start : start + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{start:04x}  {row.hex(' ', 2):<39}  {text}")
    return "\n".join(["```", *lines, "```"])


def shown(value: object) -> str:
    """A msgpack value as the worked example shows it: JSON, but bin as h'…'."""
    if isinstance(value, bytes):
        return f"h'{value.hex()}'"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(shown, value)) + "]"
    return json.dumps(value)


def manifest_of(data: bytes) -> bytes:
    offset, length = map(int, re.findall(rb"manifest=(\d+)\+(\d+) ", data)[-1])
    return data[offset : offset + length]


def manifest_lines(raw: bytes) -> str:
    document = msgpack.unpackb(raw)
    lines = [f"{json.dumps(key)}: {shown(value)}" for key, value in document.items()]
    return "\n".join(["```", "{" + ",\n ".join(lines) + "}", "```"])


def test_every_cited_id_exists() -> None:
    defined = set(ID.findall(SPEC.read_text()))
    files = [*ROOT.glob("ckptfmt/**/*.py"), *ROOT.glob("adapters/**/*.py"), *ROOT.glob("conformance/**/*.py")]
    files += [*ROOT.glob("tests/**/*.py"), *ROOT.glob("docs/**/*.md"), ROOT / "README.md"]
    cited = {name: set(ID.findall(name.read_text())) for name in files}
    dangling = {str(name): ids - defined for name, ids in cited.items() if ids - defined}
    assert not dangling
    assert len(set().union(*cited.values())) > 60  # citations are found at all


def test_ids_are_defined_once_and_cited_within_the_text() -> None:
    text = SPEC.read_text()
    definitions = re.findall(r"^- `\[([A-Z]{2,6}-[0-9]{3})\]`", text, re.MULTILINE)
    assert len(definitions) == len(set(definitions))
    assert set(CITATION.findall(text)) <= {*definitions}


def test_every_statement_is_normative() -> None:
    """A statement says MUST, SHOULD or MAY, or is an item of a list that a MUST introduces."""
    listed = ("FRM-00",)
    statements = re.findall(r"^- `\[([A-Z]{2,6}-[0-9]{3})\]` (.*(?:\n  .*)*)", SPEC.read_text(), re.MULTILINE)
    plain = [name for name, text in statements if not re.search(r"\b(MUST|SHOULD|MAY)\b", text)]
    assert [name for name in plain if not name.startswith(listed)] == []


def test_the_error_registry_is_the_code_s() -> None:
    assert registry() in SPEC.read_text()


def test_the_dtype_table_is_the_code_s() -> None:
    section = SPEC.read_text().partition("## 3. Dtypes")[2].partition("## 4.")[0]
    found = {}
    for row in re.findall(r"^\| (`[^|]*) \|[^|]*\| ([^|]*) \| (\d)", section, re.MULTILINE):
        for name in re.findall(r"`(\w+)`", row[0]):
            found[name] = (name if row[1] == "itself" else row[1].strip("`"), int(row[2]))
    assert found == {dtype.name: (dtype.storage, dtype.per) for dtype in DTYPES.values()}


def number(text: str) -> float:
    """A number as the tables write it: 448, 2¹²⁷, (2 − 2⁻⁷) · 2¹²⁷."""
    digits = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    text = re.sub("[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda power: f"**({power[0].translate(digits)})", text)
    return float(eval(text.replace("−", "-").replace("·", "*"), {"__builtins__": {}}))


def test_the_table_of_ranges_is_the_code_s() -> None:  # [DTYPE-007]
    section = SPEC.read_text().partition("`[DTYPE-007]`")[2].partition("`[DTYPE-008]`")[0]
    rows = re.findall(r"^  \| `(\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]*) \| ([^|]+) \|$", section, re.MULTILINE)
    assert {name for name, *_ in rows} == {n for n, row in DTYPES.items() if row.range and row.range.exponent}
    for name, greatest, beyond, first, nan in rows:
        found = DTYPES[name].range
        assert found is not None
        assert number(greatest) == found.greatest
        assert beyond.startswith({"inf": "±inf", "nan": "NaN", "nearest": f"±{greatest}"}[found.beyond])
        assert nan == ("−0" if found.beyond == "nearest" else "NaN")
        edge = re.fullmatch(r"±?( more than)? ?([^,]+)(,.*)?", first)
        if edge and first != "–":
            at = number(edge[2])
            for value, past in ((np.nextafter(at, 0), 0), (at, not edge[1]), (np.nextafter(at, np.inf), 1)):
                assert cast(np.array([value]), DTYPES[name].numpy).beyond == past, name


def test_the_worked_example_is_what_the_writer_writes(tmp_path: Path) -> None:
    data = example(tmp_path)
    text = SPEC.read_text()
    assert dump(data) in text
    assert manifest_lines(manifest_of(data)) in text
    assert loose_record(tmp_path) in text


def rewrite(text: str, folder: Path) -> str:
    """SPEC.md with its generated parts made anew."""
    data = example(folder)
    start, end = text.index("<!-- registry"), text.index("<!-- end of registry")
    start = text.index("\n", start) + 1
    text = f"{text[:start]}{registry()}\n{text[end:]}"
    head, title, rest = text.partition("## 18. A worked example")
    rest, history, tail = rest.partition("## 19. History")
    raw = manifest_of(data)
    rest = re.sub(r"is \d+ bytes:", f"is {len(raw)} bytes:", rest)
    blocks = iter([manifest_lines(raw), dump(data), loose_record(folder)])
    rest = re.sub(
        r"```.*?```|EXAMPLE_MANIFEST$|EXAMPLE_DUMP$|EXAMPLE_LOOSE$",
        lambda _: next(blocks),
        rest,
        flags=re.DOTALL | re.MULTILINE,
    )
    return head + title + rest + history + tail


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        SPEC.write_text(rewrite(SPEC.read_text(), Path(name)))
