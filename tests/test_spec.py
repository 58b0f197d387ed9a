"""SPEC.md and its companions, and the code, say the same: statement ids, error registries, dtype table, worked examples
and the form of the manifest."""

from __future__ import annotations

import re
import struct
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgpack
import numpy as np
import pytest
from cddl import Grammar
from spec_text import DOCUMENTS, ROOT, SPEC, STATEMENT, B, Q, W, blocks, generated, registry, value_of

import ckptfmt
from ckptfmt.errors import CODES
from ckptfmt.format.casts import cast
from ckptfmt.format.dtypes import DTYPES
from conformance import spec
from conformance.cases import INPUT, Case, read_cases, read_flat
from conformance.recipes import Flat

ID = re.compile(r"\[([A-Z]{2,6}-[0-9]{3})\]")
CITATION = re.compile(r"\b([A-Z]{2,6}-[0-9]{3})\b")
WORDS = re.compile(r"\b(MUST|SHOULD|MAY|must|shall|should|required|mandatory)\b")


def statements() -> dict[str, str]:
    return {identity: text for page in DOCUMENTS for identity, text in STATEMENT.findall(page.read_text())}


# ---- statements


def test_every_cited_id_exists() -> None:
    files = [*ROOT.glob("ckptfmt/**/*.py"), *ROOT.glob("adapters/**/*.py"), *ROOT.glob("conformance/**/*.py")]
    files += [*ROOT.glob("conformance/*.md"), *ROOT.glob("js/src/*.ts")]
    files += [*ROOT.glob("tests/**/*.py"), *ROOT.glob("docs/**/*.md"), ROOT / "README.md"]
    cited = {name: set(ID.findall(name.read_text())) for name in files}
    dangling = {str(name): ids - statements().keys() for name, ids in cited.items() if ids - statements().keys()}
    assert not dangling
    assert len(set().union(*cited.values())) > 60  # citations are found at all


def test_ids_are_defined_once_and_cited_within_the_text() -> None:
    texts = [page.read_text() for page in DOCUMENTS]
    definitions = [identity for text in texts for identity in re.findall(r"^- `\[([A-Z]{2,6}-[0-9]{3})\]`", text, re.M)]
    assert [identity for identity, count in Counter(definitions).items() if count > 1] == []
    assert {identity for text in texts for identity in CITATION.findall(text)} <= {*definitions}


def test_no_id_is_lost() -> None:
    """Ids are permanent: within a group none is left out, and a withdrawn one stands in the history."""
    groups: dict[str, set[int]] = {}
    for identity in statements():
        group, _, number = identity.partition("-")
        groups.setdefault(group, set()).add(int(number))
    for group, numbers in groups.items():
        assert numbers == {*range(1, len(numbers) + 1)}, group


def test_every_statement_is_normative() -> None:
    """A statement says MUST, SHOULD or MAY."""
    assert [name for name, text in statements().items() if not re.search(r"\b(MUST|SHOULD|MAY)\b", text)] == []


def prose(page: Path) -> str:
    """A document without its headings, tables and examples."""
    text = re.sub(r"^```\n.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^( *\||#).*$", "", text, flags=re.MULTILINE)


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.stem)
def test_every_normative_sentence_has_an_id(page: Path) -> None:
    """Neither prose nor tables ask for anything, but for the sentence on the key words itself."""
    assert re.findall(r"^ *\|.*\b(?:MUST|SHOULD|MAY)\b.*$", page.read_text(), re.MULTILINE) == []
    text = STATEMENT.sub("", prose(page)).replace("The key words MUST, MUST NOT, SHOULD, SHOULD NOT and MAY are", "")
    assert [line for line in text.splitlines() if WORDS.search(line)] == []


def test_every_statement_has_one_class() -> None:
    found = Counter(identity for identities in spec.classes().values() for identity in identities)
    assert {identity: count for identity, count in found.items() if count > 1} == {}
    assert found.keys() == statements().keys()
    assert list(spec.classes())[:2] == ["format", "reader"]
    assert all(spec.classes().values())
    described = SPEC.read_text().partition("| class | what")[2].partition("\n\n")[0]
    assert re.findall(r"^\| ([a-z ]+) \|", described, re.MULTILINE) == [*spec.classes()]


def test_the_least_reader_has_what_cases_for_it_cite() -> None:
    """Cases of layout `file` without pages, codecs and other requests than to open and read."""
    own = {identity for name in ("format", "reader", "verifying reader") for identity in spec.classes()[name]}
    features, requests = {"reader", "layout:file", "digest:sha256"}, {"open", "list", "read", "read_slice"}
    cases = [case for case in read_cases(large=True) if features >= {*case.features}]
    cited = {identity for case in cases if case.operation["op"] in requests for identity in case.spec}
    assert cited & own <= spec.least_reader() <= own
    assert len(cited) > 80


def test_the_table_of_opening_has_every_code_of_its_phases() -> None:
    rows = SPEC.read_text().partition("**Opening, in order.**")[2].partition("\n## ")[0]
    named = {code for code in re.findall(r"`([a-z-]+)`", rows) if code in CODES}
    assert named - {"missing-object"} == {
        code for code, row in CODES.items() if row.phase in ("locate", "commit", "manifest")
    }
    assert {*re.findall(r"^\| (\d+) \|", rows, re.MULTILINE)} == {str(n) for n in range(1, 19)}


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.stem)
def test_lines_can_be_read(page: Path) -> None:
    """But for rows of tables and examples, no line is longer than 200 characters: they break at sentences."""
    assert [line for line in prose(page).splitlines() if len(line) > 200] == []


def test_the_reference_table_has_what_the_text_refers_to() -> None:
    references = SPEC.read_text().partition("### 1.3 References")[2].partition("\n## ")[0]
    cited = {name for page in DOCUMENTS for name in re.findall(r"RFC \d+", page.read_text())}
    assert cited <= set(re.findall(r"RFC \d+", references))
    assert all(f"| {name} |" in references for name in ("ZIP", "Zarr", "msgpack", "FIPS 180-4", "XXH3", "BLAKE3"))


# ---- tables


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.stem)
def test_the_error_registry_is_the_code_s(page: Path) -> None:
    assert f"errors.py -->\n{registry(page)}\n<!-- end of registry -->" in page.read_text()


def test_every_code_stands_in_one_registry() -> None:
    rows = [row for page in DOCUMENTS for row in registry(page).splitlines()[2:]]
    assert len(rows) == len(CODES) == len(spec.codes())


def test_the_dtype_table_is_the_code_s() -> None:
    section = SPEC.read_text().partition("## 3. Dtypes")[2].partition("## 4.")[0]
    found = {}
    for row in re.findall(r"^\| (`[^|]*) \|[^|]*\| ([^|]*) \| (\d)", section, re.MULTILINE):
        later = re.search(r"from (\d+)\.(\d+) on", row[0])
        for name in re.findall(r"`(\w+)`", row[0]):
            since = (int(later[1]), int(later[2])) if later else (1, 0)
            found[name] = (name if row[1] == "itself" else row[1].strip("`"), int(row[2]), since)
    assert found == {dtype.name: (dtype.storage, dtype.per, dtype.since) for dtype in DTYPES.values()}


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
        edge = re.fullmatch(r"±?( ?more than)? ?([^,]+)(,.*)?", first)
        if edge and first != "–":
            at = number(edge[2])
            for value, past in ((np.nextafter(at, 0), 0), (at, not edge[1]), (np.nextafter(at, np.inf), 1)):
                assert cast(np.array([value]), DTYPES[name].numpy).beyond == past, name


# ---- worked examples


def test_the_worked_example_is_what_the_writer_writes(tmp_path: Path) -> None:
    shown = blocks()
    for name, text in generated(tmp_path).items():
        assert shown[name] == text, f"{name}: `python tests/spec_text.py` makes it anew"
    sizes = {int(size) for size in re.findall(r"manifest (?:\(.*\) is|is|of) (\d+) bytes", SPEC.read_text())}
    records = [
        shown["loose-commit-record"],
        shown["packed-commit-record"],
        bytes_of(shown["file"])[-180:].decode("latin1"),
        bytes_of(shown["paged-file"])[-180:].decode("latin1"),
    ]
    assert sizes == {int(re.findall(r"manifest=\d+\+(\d+)", record)[0]) for record in records}


def bytes_of(dumped: str) -> bytes:
    return bytes.fromhex("".join(line[6:46].replace(" ", "") for line in dumped.splitlines()))


def test_the_second_example_is_what_is_read(tmp_path: Path) -> None:
    """From the text alone: the files that it shows are a checkpoint, and give what it says."""
    shown = blocks()
    (tmp_path / "packs").mkdir()
    (tmp_path / "parts").mkdir()
    for n in range(2):
        (tmp_path / f"packs/{n:05}.zip").write_bytes(bytes_of(shown[f"pack-{n}"]))
        (tmp_path / f"parts/{n:05}.msgpack").write_bytes(bytes_of(shown[f"part-manifest-{n}"]))
    (tmp_path / "COMMIT").write_text(shown["packed-commit-record"])
    (tmp_path / "manifest.msgpack").write_bytes(msgpack.packb(value_of(shown["packed-manifest"])))
    assert ckptfmt.verify(tmp_path).ok
    with ckptfmt.open(tmp_path) as checkpoint:
        assert checkpoint["model/w"][2:4, 1].tolist() == [2.5, 3.5]
        assert checkpoint["ema/q"] is checkpoint["model/q"]
        assert checkpoint.metadata == {"step": 7}
    loaded = ckptfmt.load(tmp_path)
    assert loaded["model"]["w"].tobytes() == W.tobytes()
    assert loaded["ema"]["q"].tobytes() == Q.tobytes()


def test_the_third_example_is_what_is_read(tmp_path: Path) -> None:
    shown = blocks()
    data = bytes_of(shown["paged-file"])
    (tmp_path / "paged").write_bytes(data)
    assert ckptfmt.verify(tmp_path / "paged").ok
    with ckptfmt.open(tmp_path / "paged") as checkpoint:
        assert checkpoint["b"].read().tobytes() == B.tobytes()
    page = value_of(shown["page"])
    offset, size = int.from_bytes(page["chunks"]["offset"][8:], "little"), len(B.tobytes())
    assert f"{size} bytes at {offset}" in SPEC.read_text()
    assert data[offset : offset + size] == B.tobytes()
    assert msgpack.packb(value_of(shown["paged-manifest"])) in data
    assert shown["paged-stack"].replace("\n", "").encode() in data


# ---- the form of the manifest


@pytest.fixture(scope="module")
def grammar() -> Grammar:
    sys.setrecursionlimit(20_000)  # for the deepest trees
    return Grammar(blocks()["cddl"])


def manifest_in(files: Flat) -> bytes:
    """The manifest that the commit record names; raises what it may if there is none of this major version."""
    is_file = "" in files
    line = files[""][files[""].rindex(b"ckptfmt/") :] if is_file else files["COMMIT"]
    offset, length = map(int, re.findall(rb"^ckptfmt/1\.\d+ \w+ manifest=(\d+)\+(\d+) ", line)[0])
    return files["" if is_file else "manifest.msgpack"][offset : offset + length]


def documents(case: Case) -> tuple[object, list[object]]:
    """The manifest of a case's input, and its part manifests; None where one cannot be decoded."""
    files = read_flat(case.folder / INPUT)
    found = []
    for raw in (lambda: manifest_in(files), *(lambda n=n: files[n] for n in files if n.startswith("parts/"))):
        try:
            found.append(msgpack.unpackb(raw()))
        except (ValueError, IndexError, TypeError, KeyError, msgpack.UnpackException):
            found.append(None)
    return found[0], found[1:]


def pages_of(case: Case) -> Iterator[tuple[str, object]]:
    """The pages of a paged manifest, each with the rule that it fits."""
    files = read_flat(case.folder / INPUT)
    manifest = msgpack.unpackb(manifest_in(files))
    at, holder = manifest["pages"]["offset"], files.get("", files.get("pages.bin", b""))
    for number, (length,) in enumerate(struct.iter_unpack("<Q", manifest["pages"]["length"])):
        rule = "tensor-page" if number < len(manifest["tensors"]["first"]) else "tree-page"
        yield rule, msgpack.unpackb(holder[at : at + length])
        at += length


def test_the_grammar_fits_the_pages_of_the_vectors(grammar: Grammar) -> None:
    seen = set()
    for case in read_cases(["pages-", "crash-paged", "zarr-stack"]):
        if (case.folder / INPUT).exists() and not {"error", "damage"} & case.expect.keys():
            for rule, page in pages_of(case):
                assert grammar.fits(rule, page), case.id
                seen.add(rule)
            assert grammar.fits("paged-manifest", msgpack.unpackb(manifest_in(read_flat(case.folder / INPUT)))), case.id
    assert seen == {"tensor-page", "tree-page"}


def test_the_grammar_fits_the_manifests_of_the_vectors(grammar: Grammar) -> None:
    opened = refused = parts = 0
    for case in read_cases():
        if not (case.folder / INPUT).exists() or "pages" in case.features or case.id.startswith("verify-damaged-"):
            continue
        manifest, tables = documents(case)
        error = case.expect.get("error") if case.operation["op"] == "open" else None
        if error is None and manifest is not None:
            assert grammar.fits("manifest", manifest), case.id
            opened += 1
        elif manifest is not None:
            refused += not grammar.fits("manifest", manifest)
        if not case.id.startswith("packed-loaded"):
            assert all(grammar.fits("part-manifest", table) for table in tables if table is not None), case.id
            parts += len(tables)
    assert opened > 600
    assert refused > 150  # what breaks a form; other faults take a sentence
    assert parts > 20


@pytest.mark.parametrize(
    ("rule", "bad"),
    [
        ("node", ["list", 1]),
        ("node", ["tensor", -1]),
        ("node", ["complex", b"short"]),
        ("node", {"a": 1}),
        ("node", ["dict", [True], [1]]),
        ("node", ["dict", [["tag", "x", None, 1]], [1]]),
        ("chain", [{"name": "zstd", "configuration": {"checksum": False, "level": 3}}]),
        ("chain", ["bytes"]),
        ("reference", {"path": "parts/0", "length": 1 << 63, "sha256": bytes(32)}),
        ("table", {"tensor": None, "chunk": b"", "offset": b"", "length": b"", "digest": b""}),
        ("manifest", {"format": [1, 0]}),
        ("node", ["page", 0]),
        ("node", ["tag", "x", None, ["joined", [["list", []]], [0]]]),
        ("paged-node", ["tag", "x", ["page", 0], 1]),
        ("paged-node", ["joined", [], []]),
        ("paged-node", ["joined", [["tensor", 0]], [1]]),
        ("tree-page", ["page", 0]),
        ("tree-page", ["joined", [["list", []]], [0]]),
    ],
)
def test_the_grammar_refuses(grammar: Grammar, rule: str, bad: object) -> None:
    assert not grammar.fits(rule, bad)


def test_the_dtypes_of_the_grammar_are_those_of_the_table(grammar: Grammar) -> None:
    assert all(grammar.fits("dtype", name) for name in DTYPES)
    assert blocks()["cddl"].partition("\ndtype =")[2].partition("\n\n")[0].count('"') == 2 * len(DTYPES)


# ---- what stands elsewhere


def test_sections_that_are_cited_exist() -> None:
    headings = set(re.findall(r"^## (\d+)\. ", SPEC.read_text(), re.MULTILINE)) - {"20"}  # a pointer
    pages = [*ROOT.glob("ckptfmt/**/*.py"), *ROOT.glob("adapters/**/*.py"), *ROOT.glob("conformance/**/*.py")]
    pages += [*ROOT.glob("tests/**/*.py"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("conformance/*.md")]
    cited = {page: set(re.findall(r"SPEC\.md,? sections? (\d+)", page.read_text())) for page in pages}
    assert {str(page): numbers - headings for page, numbers in cited.items() if numbers - headings} == {}
    assert len(set().union(*cited.values())) > 10
