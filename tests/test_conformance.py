"""The conformance suite: its cases are whole and traceable, ckptfmt and the other implementations pass them, and
implementations that are wrong on purpose do not."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import venv
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import msgpack
import pytest
from javascript import missing, node
from ramdisk import in_memory, temporaries, tmp_path

from conformance import HERE, VECTORS, VERSION, archive, coverage, make, report
from conformance.__main__ import KNOWN, as_expected, command_of, implementation, main
from conformance.cases import read_case, read_cases
from conformance.run import BROKEN, FAILED, PASSED, SKIPPED, UNSUPPORTED, Result, run_cases
from conformance.wrong import MUST_FAIL
from conformance.wrong.__main__ import WRONG

__all__ = ["in_memory", "temporaries", "tmp_path"]  # fixtures
pytestmark = pytest.mark.usefixtures("temporaries")  # each of thousands of cases has a folder of its own


def test_every_statement_is_tested_and_every_citation_exists() -> None:
    assert coverage.problems() == [], "\n".join(coverage.problems())


def test_the_table_of_statements_is_that_of_the_cases() -> None:
    message = "run `python -m conformance coverage --write`"
    assert coverage.PAGE.read_text() == coverage.page(), message


def test_the_archive_is_whole_and_always_the_same(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    one, other = archive.write(tmp_path), archive.write(tmp_path / "again")
    assert one.read_bytes() == other.read_bytes()
    assert hashlib.sha256(one.read_bytes()).hexdigest() in one.with_suffix(".zip.sha256").read_text()
    with zipfile.ZipFile(one) as archived:
        assert {
            "SPEC.md",
            "docs/spec/migrations.md",
            "conformance/PROTOCOL.md",
            "conformance/vectors/tree-base/input.ckpt",
        } <= {*archived.namelist()}


def test_the_archive_needs_the_standard_library_and_msgpack_alone(tmp_path: Path) -> None:
    """In a fresh environment with msgpack and nothing else, the unpacked suite runs all its cases."""
    with zipfile.ZipFile(archive.write(tmp_path)) as archived:
        archived.extractall(tmp_path)
    venv.create(tmp_path / "venv", with_pip=False)
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    shutil.copytree(Path(msgpack.__file__).parent, packages / "msgpack")
    (tmp_path / "reader.py").write_text(PASSIVE)

    def suite(*arguments: str) -> subprocess.CompletedProcess[str]:
        words = [str(tmp_path / "venv" / "bin" / "python"), "-E", "-W", "error", "-m", "conformance", *arguments]
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)

    done = suite("run", "--impl", f"{sys.executable} {tmp_path / 'reader.py'}", "--json", "x.json", "--html", "x.html")
    assert done.stderr == ""
    assert done.returncode == 1
    assert "failed     array-codec-beyond" in done.stdout
    counted = json.loads((tmp_path / "x.json").read_text())["implementations"]
    (numbers,) = (row["counts"] for row in counted.values())
    assert numbers[SKIPPED] > 0  # what takes the package blake3 to judge
    assert numbers[FAILED] > 600
    assert suite("list", "tree-").stdout.startswith("tree-aliases")
    assert '"tree-base"' in suite("show", "tree-base").stdout
    assert suite("coverage").returncode == 0


def test_cases_say_which_version_brought_them() -> None:
    """The first version is closed: whatever is new stands in since.json under a version of the changelog."""
    cases = read_cases(large=True)
    assert sum(case.since == "1.0.0" for case in cases) == 1238
    listed = json.loads((HERE / "since.json").read_text())
    assert {identity for ids in listed.values() for identity in ids} <= {case.id for case in cases}
    assert ["1.0.0", *listed] == re.findall(r"^## (.*)$", (HERE / "CHANGELOG.md").read_text(), re.MULTILINE)[::-1]
    assert list(listed)[-1] == VERSION


def test_there_are_enough_small_cases() -> None:
    assert len(read_cases()) >= 300
    assert sum(path.stat().st_size for path in VECTORS.rglob("*") if path.is_file()) < 20 << 20


def test_vectors_are_what_the_descriptions_give() -> None:
    assert make.differences() == [], "run `python -m conformance.make`"


def test_every_case_matches_the_schema() -> None:
    known: dict[tuple[str, int], list[Any]] = {}
    plain = jsonschema.Draft202012Validator.VALIDATORS["$ref"]

    def once(validator: Any, reference: str, instance: Any, schema: Any) -> list[Any]:
        """What is within is looked at once, and not twice as often at each level: `oneOf` asks anew."""
        place = reference, id(instance)
        if place not in known:
            known[place] = [*plain(validator, reference, instance, schema)]
        return known[place]

    schema = json.loads((HERE / "case.schema.json").read_text())
    validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"$ref": once})(schema)
    for case in read_cases(large=True):
        # these are deeper than the stack of a validator, and of a size that takes it seconds
        if not re.search("deepest|too-deep|4097", case.id):
            document = case.document()
            validator.validate(document)
            known.clear()  # before the document goes, with the ids of its values
        assert case.folder.is_dir()
    unfit = {**document, "operation": {"op": "read_into", "target": {"type": "list", "items": [{"type": "nothing"}]}}}
    assert not validator.is_valid(unfit)


def test_ckptfmt_passes_and_what_it_writes_is_read_by_all_others() -> None:
    names = ["zarr-python", "tensorstore", "python", *([] if missing() else ["javascript"])]
    with ExitStack() as stack:
        found, *readers = [stack.enter_context(implementation(name, 60)) for name in ("ckptfmt", *names)]
        for reader in readers:
            reader.start()
        results = run_cases(found, read_cases(), readers)
    bad = [f"{result.case.id}: {result.message}" for result in results if result.outcome in (FAILED, BROKEN)]
    assert bad == []
    lacking = {r.message for r in results if r.outcome in (UNSUPPORTED, SKIPPED)}
    assert lacking == set()
    runs = {"ckptfmt": results}
    document = json.loads(report.as_json(runs))
    assert document["implementations"]["ckptfmt"]["counts"][PASSED] > 800
    assert len(ElementTree.fromstring(report.as_junit(runs)).findall(".//testcase")) == len(results)
    assert "layout:file" in report.as_html(runs)


@pytest.mark.parametrize("name", ["zarr-python", "tensorstore"])
def test_stock_readers_read_every_node(name: str) -> None:
    with implementation(name, 60) as found:
        results = run_cases(found, read_cases(["zarr-"]))
    assert {result.case.id: result.message for result in results if result.outcome != PASSED} == {}


@pytest.mark.parametrize("name", ["javascript", "python"])
def test_independent_readers_pass(name: str) -> None:
    if name == "javascript":
        node()  # or the test is skipped
    with implementation(name, 60) as found:
        results = run_cases(found, read_cases())
    assert {r.case.id: r.message for r in results if r.outcome in (FAILED, BROKEN)} == {}
    assert sum(result.outcome == PASSED for result in results) > 500


OLDER = """
from ckptfmt.format import manifest
manifest.KNOWN_FEATURES = frozenset()
from conformance.implementations.ckptfmt import Adapter
Adapter.features = [feature for feature in Adapter.features if feature != "pages"]
Adapter().serve()
"""


def test_a_reader_of_1_0_refuses_pages_by_name() -> None:
    cases = [case for case in read_cases(["pages-"]) if "pages" in case.features]
    with implementation("x", 60) as found:
        found.command = [sys.executable, "-c", OLDER]
        results = run_cases(found, cases)
    assert {r.case.id: r.message for r in results if r.outcome != UNSUPPORTED} == {}
    assert len(results) > 150


# ---- the tester is tested


def test_every_wrong_implementation_is_listed() -> None:
    assert WRONG.keys() == MUST_FAIL.keys()
    assert len(WRONG) >= 10


@pytest.mark.parametrize("name", MUST_FAIL)
def test_a_wrong_implementation_fails(name: str) -> None:
    with implementation(f"{sys.executable} -m conformance.wrong {name}", 60) as wrong:
        results = run_cases(wrong, [read_case(VECTORS / identity) for identity in MUST_FAIL[name]])
    assert [result.case.id for result in results if result.outcome not in (FAILED, BROKEN)] == []


PASSIVE = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    if request["op"] == "bye":
        break
    features = ["reader", "write", "migrate", "layout:file", "digest:sha256", "digest:blake3"]
    body = {"name": "passive", "version": "1", "features": features} if request["op"] == "hello" else {}
    print(json.dumps({"id": request["id"], "ok": body}), flush=True)
"""


def replying(*bodies: str) -> list[str]:
    """A program that says hello, and then replies with each of these."""
    lines = [HELLO, *(f'{{"id": {number}, {body}}}' for number, body in enumerate(bodies, 2))]
    return [sys.executable, "-c", f"for line in {lines!r}: input(); print(line, flush=True)\ninput()"]


def test_replies_of_unheard_of_forms_do_not_end_the_run() -> None:
    ids = ["tree-base", "record-crc32"]
    command = replying('"ok": {}', '"ok": {"value": {"type": "dict", "items": [["v", 1]]}}', '"ok": {}')
    with implementation("x", 5) as found:
        found.command = command
        one, two = run_cases(found, [read_case(VECTORS / identity) for identity in ids])
    assert one.outcome in (FAILED, BROKEN)
    assert two.outcome == FAILED
    assert "accepted" in two.message


def test_what_is_refused_too_soon_is_said_and_passes_where_it_may_be() -> None:
    for identity, outcome in {"pages-tensors-no-name": FAILED, "pages-tree-twice": PASSED}.items():
        with implementation("x", 5) as found:
            found.command = replying('"error": {"code": "bad-manifest", "message": "it is bad"}')
            (result,) = run_cases(found, [read_case(VECTORS / identity)])
        assert result.outcome == outcome
        assert result.message == (
            "refused at `open` with bad-manifest; expected at `read`: it is bad" if outcome == FAILED else ""
        )


def test_braces_of_a_command_are_its_own() -> None:
    assert command_of("{python} -c 'print({1})' {here}/x {x}") == [
        *(sys.executable, "-c", "print({1})", f"{HERE}/x", "{x}")
    ]


def test_a_program_that_always_hangs_is_not_asked_for_ever() -> None:
    with implementation("x", 0.2) as found:
        found.command = [sys.executable, "-c", f"import time; input(); print('{HELLO}', flush=True); time.sleep(60)"]
        results = run_cases(found, read_cases(["record-"]))
    assert {result.outcome for result in results} == {BROKEN}
    assert sum("not asked any more" in result.message for result in results) == len(results) - 5


def test_what_a_program_has_started_ends_with_it(tmp_path: Path) -> None:
    """The program may stand behind a shell."""
    (tmp_path / "reader.py").write_text(PASSIVE)
    with implementation("x", 5) as found:
        found.command = ["sh", "-c", f"echo $$ > {tmp_path}/pid; {sys.executable} {tmp_path}/reader.py; sleep 60"]
        found.start()
        group = int((tmp_path / "pid").read_text())
        found.kill()
    assert any(is_gone(group) or time.sleep(0.05) for _ in range(100))


def is_gone(group: int) -> bool:
    """Whether no process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def test_the_terminal_does_not_drown(capsys: pytest.CaptureFixture[str]) -> None:
    results = [Result(case, FAILED, "value differs: at /x: y") for case in read_cases(["record-"])]
    report.terminal("x", results)
    shown = capsys.readouterr().out
    assert f"and {len(results) - report.DETAILED} more" in shown
    assert f"{len(results) - report.DETAILED} × value differs" in shown


HELLO = """{"id": 1, "ok": {"name": "x", "version": "1", "features": ["reader", "layout:file", "digest:sha256"]}}"""
BAD = {
    "does-not-start": (["/nowhere/at/all"], "start"),
    "exits": ([sys.executable, "-c", "raise SystemExit(3)"], "crash: it ended with status 3"),
    "prints-junk": ([sys.executable, "-c", "print('hello'); input()"], "junk"),
    "says-hello-alone": ([sys.executable, "-c", f"input(); print('''{HELLO}''', flush=True)"], "crash"),
    "hangs": (
        [sys.executable, "-c", f"import time; input(); print('''{HELLO}''', flush=True); time.sleep(60)"],
        "timeout",
    ),
    "out-of-order": (
        [sys.executable, "-c", f"input(); print('''{HELLO}''', flush=True); input(); print('''{HELLO}''', flush=True)"],
        "order",
    ),
    "two-answers": (
        [
            sys.executable,
            "-c",
            (
                f"input(); print('''{HELLO}''', flush=True); input(); "
                """print('{"id": 2, "ok": {}, "error": {"code": "io"}}', flush=True)"""
            ),
        ],
        "junk",
    ),
    "unknown-code": (
        [
            sys.executable,
            "-c",
            (
                f"input(); print('''{HELLO}''', flush=True); input(); "
                """print('{"id": 2, "error": {"code": "oops"}}', flush=True); input()"""
            ),
        ],
        "junk",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_program_is_reported_as_what_it_is(name: str) -> None:
    command, how = BAD[name]
    with implementation("x", 2) as found:
        found.command = command
        (result,) = run_cases(found, [read_case(VECTORS / "record-crc32")])
    assert result.outcome == BROKEN, result.message
    assert how in result.message
    assert "--case record-crc32" in report.reproduction("x", result.case)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["run", "--impl", "ckptfmt", "--case", "nosuch"], "no case begins with nosuch"),
        (["run", "--impl", ""], "an empty command"),
        (["run", "--impl", "ckptfmt", "--known-failures", "/nowhere/at/all"], "/nowhere/at/all"),
        (["run", "--impl", "ckptfmt", "--html", "/nowhere/at/all"], "/nowhere/at/all"),
        (["run", "--impl", "ckptfmt", "--reader", "/nowhere/at/all"], "the reader /nowhere/at/all is of no use: start"),
        (["show", "nosuch"], "there is no case nosuch"),
        (["list", "nosuch"], "no case begins with nosuch"),
    ],
)
def test_what_cannot_be_run_is_said_in_a_line(
    arguments: list[str], text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["conformance", *arguments])
    assert main() == 2
    assert text in capsys.readouterr().err


def test_a_reader_that_breaks_is_named_and_the_run_goes_on(tmp_path: Path) -> None:
    """What the implementation wrote is right; another reader dies over it."""
    (tmp_path / "dies.py").write_text(PASSIVE.replace("else {}", "else sys.exit(3)"))
    ids = ["write-file-sha256", "tree-base"]
    with implementation("ckptfmt", 60) as writer, implementation("x", 60) as reader:
        reader.command = [sys.executable, str(tmp_path / "dies.py")]
        reader.start()
        one, two = run_cases(writer, [read_case(VECTORS / identity) for identity in ids], [reader])
    assert one.outcome == FAILED
    assert "broke over what was written: crash: it ended with status 3" in one.message
    assert two.outcome == PASSED


def test_known_failures_are_strict_both_ways() -> None:
    with implementation("zarr-python", 60) as found:
        results = run_cases(found, read_cases(["zarr-int16"]))
    assert as_expected("x", results, set())
    assert not as_expected("x", results, {"zarr-int16"})
    failed = [result._replace(outcome=FAILED) for result in results]
    assert not as_expected("x", failed, set())
    assert as_expected("x", failed, {"zarr-int16"})


def test_every_implementation_has_a_command() -> None:
    assert {"ckptfmt", "zarr-python", "tensorstore"} <= json.loads(KNOWN.read_text()).keys()


def test_reports_are_written_also_if_the_terminal_goes_away(tmp_path: Path) -> None:
    """As with `| head`."""
    command = [sys.executable, "-m", "conformance", "run", "--impl", "python", "--case", "codec-chain"]
    command += ["--json", str(tmp_path / "x.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=HERE.parent) as process:
        assert process.stdout is not None
        process.stdout.close()
    assert json.loads((tmp_path / "x.json").read_text())
