"""Putting a case to an implementation, and judging what it replies."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from . import judge, provenance
from .cases import BadInput, Case, input_of, missing_on_this_system, prepare, read_flat
from .crash import check_states, check_trace
from .model import in_key_order, path_text, same
from .process import Broken, Implementation, Reply
from .spec import codes

sys.setrecursionlimit(10_000)  # the deepest trees are hundreds of values deep

SOFT = (
    "layout",
    "digest",
    "codec",
    "format",
    "pages",
    "patch",
)  # features whose cases are run even where they are not declared
UNKNOWN = {"unknown-digest", "unknown-codec", "unknown-feature", "older-format"}
PASSED, FAILED, UNSUPPORTED, SKIPPED, BROKEN = "passed", "failed", "unsupported", "skipped", "broken"
OUTCOMES = (PASSED, FAILED, BROKEN, UNSUPPORTED, SKIPPED)
PATIENCE = 5  # time-outs in a row after which no more is asked


class Result(NamedTuple):
    """What became of a case. `broken` is a failure in which the protocol, not a value, was wrong."""

    case: Case
    outcome: str
    message: str = ""
    seconds: float = 0.0
    stderr: str = ""


class Verdict(Exception):
    """The case is decided: `outcome` and why."""

    def __init__(self, outcome: str, message: str) -> None:
        super().__init__(message)
        self.outcome, self.message = outcome, message


def run_cases(
    implementation: Implementation, cases: Iterable[Case], readers: Iterable[Implementation] = ()
) -> list[Result]:
    """Run cases one after another; what `implementation` writes is also read by `readers`."""
    others, results, in_a_row = list(readers), [], 0
    with tempfile.TemporaryDirectory(prefix="ckptfmt-conformance-") as folder:
        for case in cases:
            if in_a_row < PATIENCE:
                results.append(_run(implementation, case, Path(folder), others))
                timed_out = results[-1].outcome == BROKEN and results[-1].message.startswith("timeout")
                in_a_row = in_a_row + 1 if timed_out else 0
            else:
                results.append(Result(case, BROKEN, f"timeout: not asked any more, after {PATIENCE} in a row"))
    return results


def _run(implementation: Implementation, case: Case, folder: Path, readers: list[Implementation]) -> Result:
    scratch = folder / case.id
    scratch.mkdir()
    begin = time.perf_counter()
    outcome, message, stderr = PASSED, "", ""
    try:
        Question(implementation, case, scratch, readers).put()
        if stray := implementation.stray():
            raise Broken("junk", f"a line that nobody asked for: {stray[:200]!r}")
    except Verdict as verdict:
        outcome, message = verdict.outcome, verdict.message
    except Broken as broken:
        outcome, message, stderr = BROKEN, f"{broken.how}: {broken.message}", implementation.stderr
        implementation.kill()
    except BadInput as error:
        outcome, message = FAILED, f"the suite is damaged: {error}"
    except Exception as error:  # a reply or a file of a form that nobody thought of must not end the run
        outcome, message = BROKEN, f"junk: what came back cannot be judged: {error!r:.200}"
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if outcome == FAILED:
        stderr = implementation.stderr
    return Result(case, outcome, message, time.perf_counter() - begin, stderr)


class Question:
    """One case put to one implementation."""

    def __init__(
        self, implementation: Implementation, case: Case, scratch: Path, readers: list[Implementation]
    ) -> None:
        self.implementation, self.case, self.scratch, self.readers = implementation, case, scratch, readers
        self.expect, self.operation = case.expect, case.operation
        self.lacking: set[str] = set()

    def put(self) -> None:
        """Return if the case passes; raise `Verdict` otherwise."""
        if not self.implementation.features:
            self.implementation.start()
        self.lacking = set(self.case.features) - self.implementation.features
        hard = {feature for feature in self.lacking if feature.partition(":")[0] not in SOFT}
        if hard:
            raise Verdict(UNSUPPORTED, f"needs {', '.join(sorted(hard))}")
        if reason := missing_on_this_system(self.case):
            raise Verdict(SKIPPED, reason)
        _OPERATIONS[self.operation["op"]](self)

    # ---- operations

    def open(self) -> None:
        self.check(self.ask_open())

    def listing(self) -> None:
        self.must_open()
        body = self.check(self.ask("list"))
        for key in ("tree", "metadata", "schema"):
            if key in self.expect:
                self.compare(body, body.get(key), self.expect[key], key)
        tags = body.get("unknown_tags", [])
        if not isinstance(tags, list) or len(set(map(str, tags))) != len(tags):
            raise Verdict(FAILED, f"unknown_tags names a tag more than once: {tags} [TAG-001]")

    def read(self) -> None:
        if self.refused_at_opening():
            return
        arguments = {key: self.operation[key] for key in ("path", "slices", "verify") if key in self.operation}
        reply = self.ask(self.operation["op"], **arguments)
        self.value(reply)

    def verify(self) -> None:
        reply = self.ask("verify", file=self.input())
        expected = self.expect.get("damage")
        if reply.kind == "error" and expected is not None:
            self.check(reply, any_of=[code for entry in expected for code in _codes(entry)])
            return
        body = self.check(reply)
        found = body.get("damage")
        if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
            raise Verdict(FAILED, "the reply has no list `damage`")
        for entry in expected or []:
            if not any(_fits(one, entry) for one in found):
                raise Verdict(FAILED, f"damage not found: {entry}; found {found}")
        for one in found:
            if not any(_fits(one, entry) for entry in expected or []):
                raise Verdict(FAILED, f"damage found where there is none: {one}")

    def read_node(self) -> None:
        arguments = {key: self.operation[key] for key in ("name", "root") if key in self.operation}
        self.value(self.ask("read_node", file=self.input(), **arguments))

    def read_into(self) -> None:
        self.must_open()
        reply = self.ask("read_into", target=self.operation["target"])
        self.value(reply)
        if reply.kind == "error":
            if reply.whole.get("touched") is not False:
                raise Verdict(FAILED, "the target was written to before the mismatch was reported [READ-006]")
            for key, paths in self.expect["report"].items():
                found = (reply.whole.get("report") or {}).get(key)
                if sorted(found or []) != sorted(paths):
                    raise Verdict(FAILED, f"the report's `{key}` is {found} instead of {paths} [READ-006]")

    def write(self) -> None:
        before = self.before()
        reply = self.ask("write", file=str(self.target), **self.described())
        left = sorted(path.name for path in self.target.parent.iterdir() if path != self.target)
        if left:
            raise Verdict(FAILED, f"the writer left {', '.join(left)} beside the target [PUB-007]")
        self.check(reply)
        if reply.kind == "error":
            if judge.snapshot(self.target) != before:
                raise Verdict(FAILED, "the writer refused, and changed the target [PUB-007]")
            return
        self.written(reply.body)

    def written(self, body: dict[str, Any]) -> None:
        """Judge what was written; let everyone read it; have it written again."""
        self.read_back_by_all()
        canonical = "canonical" in self.implementation.features
        found = judge.judge(self.target, canonical=canonical)
        if found.violations:
            raise Verdict(FAILED, "; ".join(found.violations[:3]))
        for key, value in (("tree", found.tree), ("metadata", found.metadata)):
            if key in self.expect and found.complete and (text := same(value, self.expect[key])):
                raise Verdict(FAILED, f"what was written is another {key}: {text}")
        if "overlaps" in self.expect and sorted(map(sorted, body.get("overlaps") or [])) != self.expect["overlaps"]:
            raise Verdict(FAILED, f"overlaps are {body.get('overlaps')}, not {self.expect['overlaps']} [TREE-011]")
        again = self.scratch / "again" / "other.ckpt"
        again.parent.mkdir()
        self.check(self.ask("write", file=str(again), **self.described()))
        if judge.snapshot(again) != judge.snapshot(self.target):
            raise Verdict(FAILED, "the same tree and options gave other bytes the second time [MAN-009]")

    def migrate(self) -> None:
        """A checkpoint that is migrated or upgraded: the source is as it was, the result is judged and read back."""
        op, arguments = self.operation["op"], {k: v for k, v in self.operation.items() if k not in ("op", "migrations")}
        source = self.scratch / "source.ckpt"  # a copy: what a program may write to is never the suite's own
        (shutil.copytree if Path(self.input()).is_dir() else shutil.copyfile)(self.input(), source)
        before = judge.snapshot(source)
        self.target.parent.mkdir()
        if "migrations" in self.operation:
            arguments["migrations"] = [self.migration_file(*each) for each in enumerate(self.operation["migrations"])]
        reply = self.ask(op, file=str(source), target=str(self.target), **arguments)
        if judge.snapshot(source) != before:
            raise Verdict(FAILED, "the source was changed [MIG-019]")
        left = sorted(
            path.name for path in self.target.parent.iterdir() if path != self.target or reply.kind == "error"
        )
        if left:
            raise Verdict(FAILED, f"{', '.join(left)} was left [PUB-007]")
        body = self.check(reply)
        if reply.kind == "error":
            faults = reply.whole.get("faults")
            if "faults" in self.expect and (not isinstance(faults, list) or len(faults) < self.expect["faults"]):
                raise Verdict(FAILED, f"`faults` is {faults}; there are {self.expect['faults']} to be told [MIG-013]")
            return
        if "class" in self.expect and body.get("class") != self.expect["class"]:
            raise Verdict(FAILED, f"the class is {body.get('class')!r}, not {self.expect['class']!r} [MIG-014]")
        self.read_back_by_all()
        found = judge.judge(self.target, canonical=False)
        if found.violations:
            raise Verdict(FAILED, "; ".join(found.violations[:3]))
        for key, value in (("tree", found.tree), ("metadata", found.metadata)):
            if found.complete and (text := same(self.folded(value), self.folded(self.expect[key]))):
                raise Verdict(FAILED, f"the result has another {key}: {text}")
        schema = found.manifest["schema"]
        if (schema and {key: schema[key] for key in ("id", "version")}) != self.expect["schema"]:
            raise Verdict(FAILED, f"the result's schema is {schema}, not {self.expect['schema']} [MIG-017]")
        record = {"operation": op}
        record |= (
            {"schema": schema["id"], "chain": self.expect["chain"]}
            if op == "migrate"
            else {"format": self.expect["was"]}
        )
        if text := provenance.difference(found.manifest, read_flat(source), record):
            raise Verdict(FAILED, text)

    def migration_file(self, number: int, content: Any) -> str:
        """A file of migrations: documents as JSON, or the bytes that are given."""
        path = self.scratch / f"migrations-{number}"
        raw = isinstance(content, dict) and content.keys() == {"hex"}
        path.write_bytes(bytes.fromhex(content["hex"]) if raw else json.dumps(content).encode())
        return str(path)

    def folded(self, value: Any) -> Any:
        """A value to be compared: where the order of leaves is free, dicts are sorted. [MIG-015]"""
        return value if "chain" not in self.expect or self.expect.get("ordered") else in_key_order(value)

    def read_back_by_all(self) -> None:
        """Have what was written read by the implementation and by every reader, whose faults are not taken for its."""
        self.read_back(self.implementation)
        for reader in self.readers:
            try:
                self.read_back(reader)
            except Broken as broken:
                reader.kill()
                message = f"{reader.name} broke over what was written: {broken.how}: {broken.message}"
                raise Verdict(FAILED, message) from broken

    def read_back(self, reader: Implementation) -> None:
        """Read what was written with an implementation; stock Zarr readers read every tensor on its own."""
        if "reader" not in reader.features:
            if "zarr" in reader.features:
                self.read_nodes(reader)
            return
        reply = reader.ask({"op": "open", "file": str(self.target)})
        if reply.kind == "ok":
            reply = reader.ask({"op": "read", "path": []})
        if reply.kind == "unsupported" or (reply.kind == "error" and reply.body.get("code") in UNKNOWN):
            return
        if reply.kind != "ok":
            raise Verdict(FAILED, f"{reader.name} cannot read what was written: {reply.whole}")
        tags = given_as_child(reply.body)
        if text := same(self.folded(reply.body.get("value")), self.folded(self.expect["tree"]), tags):
            raise Verdict(FAILED, f"{reader.name} reads back another tree: {text}")

    def read_nodes(self, reader: Implementation) -> None:
        for (root, name), value in judge.nodes(self.target).items():
            further = {} if root == "tensors" else {"root": root}
            reply = reader.ask({"op": "read_node", "file": str(self.target), "name": name, **further})
            if reply.kind == "unsupported":
                continue
            text = same(reply.body.get("value"), value) if reply.kind == "ok" else str(reply.whole)
            if text:
                raise Verdict(FAILED, f"{reader.name} reads node {name!r} as something else: {text}")

    def commit(self) -> None:
        """A recorded commit: what a power loss may leave must be what was there, or the whole new checkpoint."""
        self.before()
        trace = self.scratch / "trace.jsonl"
        start = judge.snapshot(self.target)
        self.check(self.ask("commit", file=str(self.target), trace=str(trace), **self.described()))
        if text := check_trace(trace, self.target, start):
            raise Verdict(FAILED, text)

    def states(self) -> None:
        """Crash states of a recorded trace, each read by the implementation."""
        trace = self.case.folder / str(self.operation["trace"])

        def look(path: Path) -> str:
            reply = self.ask("open", file=str(path))
            if reply.kind == "error":
                self.check(reply, any_of=self.expect["absent"])
                return "absent"
            self.accept(reply)
            value = self.accept(self.ask("read", path=[])).get("value")
            for name in ("previous", "new"):
                if name in self.expect["trees"] and not same(value, self.expect["trees"][name]):
                    return name
            return "neither"

        if text := check_states(trace, self.scratch, look, self.expect["states"]):
            raise Verdict(FAILED, text)

    # ---- parts of them

    @property
    def target(self) -> Path:
        return self.scratch / "out" / str(self.operation.get("name", "model.ckpt"))

    def before(self) -> Any:
        """Put what stands at the target before a write; a picture of it."""
        self.target.parent.mkdir(exist_ok=True)
        if self.case.input is not None:
            source = prepare(self.case, self.scratch)
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, self.target)
        return judge.snapshot(self.target)

    def described(self) -> dict[str, Any]:
        return {key: self.operation[key] for key in ("tree", "metadata", "options") if key in self.operation}

    def input(self) -> str:
        return str(prepare(self.case, self.scratch).absolute())

    def ask(self, op: str, **arguments: Any) -> Reply:
        return self.implementation.ask({"op": op, **arguments})

    def ask_open(self) -> Reply:
        """Open the input; of a patch, with what may be its base."""
        bases = [str(input_of(name, self.scratch).absolute()) for name in self.operation.get("bases", ())]
        return self.ask("open", file=self.input(), **({"bases": bases} if bases else {}))

    def must_open(self) -> None:
        self.accept(self.ask_open())

    def refused_at_opening(self) -> bool:
        """Open the input; whether it is refused for what the case asks a later request to refuse, and that is as
        well. [PAGE-014]"""
        reply = self.ask_open()
        self.decline(reply)
        error = self.expect.get("error", {})
        if reply.kind == "error" and reply.body.get("code") in error.get("any_of", []):
            if error.get("at_opening"):
                return True
            code, op, message = reply.body["code"], self.operation["op"], reply.body.get("message", "")
            raise Verdict(FAILED, f"refused at `open` with {code}; expected at `{op}`: {message}")
        self.accept(reply)
        return False

    def value(self, reply: Reply) -> None:
        """Judge a reply that holds a value, then what must be readable all the same."""
        body = self.check(reply)
        if "value" in self.expect:
            self.compare(body, body.get("value"), self.expect["value"], "value")
        for entry in self.expect.get("still_readable", []):
            other = self.accept(self.ask("read", path=entry["path"]))
            where = path_text(entry["path"])
            self.compare(other, other.get("value"), entry["value"], f"{where!r}, which is not damaged,")

    def compare(self, body: dict[str, Any], found: Any, expected: Any, what: str) -> None:
        if what == "schema":
            text = "" if found == expected else f"{found} instead of {expected}"
        else:
            text = same(found, expected, given_as_child(body))
        if text:
            raise Verdict(FAILED, f"{what} differs: {text}")

    def accept(self, reply: Reply) -> dict[str, Any]:
        """The body of a reply that must be `ok`."""
        self.decline(reply)
        if reply.kind != "ok":
            raise Verdict(FAILED, f"refused with {reply.body.get('code')}: {reply.body.get('message', '')}")
        found: dict[str, Any] = reply.body
        return found

    def check(self, reply: Reply, any_of: list[str] | None = None) -> dict[str, Any]:
        """The body of a reply, if it is of the kind that the case expects and keeps to its budget."""
        error = {"any_of": any_of} if any_of is not None else self.expect.get("error")
        if error is None:
            body = self.accept(reply)
            self.check_budget(reply)
            return body
        self.decline(reply)
        wanted = " or ".join(error["any_of"])
        if reply.kind == "ok":
            raise Verdict(FAILED, f"accepted, but should be refused with {wanted}")
        found: dict[str, Any] = reply.body
        if found.get("code") not in codes():
            raise Broken(
                "junk", f"the error has the code {found.get('code')!r}, which SPEC.md section 16 does not have"
            )
        if found["code"] not in error["any_of"]:
            raise Verdict(FAILED, f"refused with {found['code']} instead of {wanted}: {found.get('message', '')}")
        for key in ("tensor", "chunk", "block", "object"):
            if key in error and found.get(key) != error[key]:
                raise Verdict(FAILED, f"the error names {key} {found.get(key)!r} instead of {error[key]!r} [BLK-004]")
        return found

    def decline(self, reply: Reply) -> None:
        """Decide the case if the reply is `unsupported` or `skipped`, or refuses what was not declared."""
        if reply.kind == "skipped":
            raise Verdict(SKIPPED, reply.body)
        if reply.kind == "unsupported":
            if reply.body in self.implementation.features:
                raise Verdict(FAILED, f"declares {reply.body}, and says that it lacks it")
            if not self.lacking:
                raise Verdict(FAILED, f"says that it lacks {reply.body}, which the case does not need")
            raise Verdict(UNSUPPORTED, f"needs {reply.body}")
        if self.lacking and reply.kind == "error" and reply.body.get("code") in UNKNOWN:
            raise Verdict(UNSUPPORTED, f"needs {', '.join(sorted(self.lacking))}")

    def check_budget(self, reply: Reply) -> None:
        budget = self.expect.get("budget")
        if budget is None:
            return
        if reply.bytes_read is None:
            raise Verdict(SKIPPED, "nobody counts the bytes that are read")
        if reply.bytes_read > budget["bytes"]:
            raise Verdict(FAILED, f"{reply.bytes_read:,} bytes were read; at most {budget['bytes']:,} are needed")


_OPERATIONS: dict[str, Callable[[Question], None]] = {
    "open": Question.open,
    "list": Question.listing,
    "read": Question.read,
    "read_slice": Question.read,
    "read_into": Question.read_into,
    "read_node": Question.read_node,
    "verify": Question.verify,
    "write": Question.write,
    "commit": Question.commit,
    "migrate": Question.migrate,
    "upgrade": Question.migrate,
    "states": Question.states,
}


def given_as_child(body: dict[str, Any]) -> frozenset[str]:
    """Names of tags that a reply gives as their child. [TAG-001] [TAG-004]"""
    return frozenset(str(name) for key in ("unknown_tags", "plain_tags") for name in body.get(key) or [])


def _fits(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Whether a reported damage is an expected one; `any_of` allows several codes."""
    places = {key: value for key, value in expected.items() if key not in ("code", "any_of")}
    return found.get("code") in _codes(expected) and all(found.get(key) == value for key, value in places.items())


def _codes(damage: dict[str, Any]) -> list[str]:
    """The codes that an expected damage allows."""
    found: list[str] = damage.get("any_of") or [damage["code"]]
    return found
