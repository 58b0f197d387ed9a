"""Mutation testing of the suite: small faults are put into the reader of `ckptfmt`, one at a time, and the suite alone
has to notice. `python -m conformance.mutants --count 60 --json FILE`; takes some seconds for each.

Mutations: a flipped comparison, a negated condition, a fault that is not raised, a number that is one too large, `and`
for `or`. Each is a change of one place in a copy of the package; the tree itself is never touched.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from . import HERE
from .cases import Case, read_cases
from .process import Implementation
from .run import BROKEN, FAILED, run_cases

PACKAGE = HERE.parent / "ckptfmt"
MODULES = (
    *(f"format/{noun}.py" for noun in ("manifest", "tree", "commit", "chunk_table", "placement", "codecs")),
    *(f"format/{noun}.py" for noun in ("chunks", "arrays", "grid", "names")),
    *(f"format/{noun}.py" for noun in ("pages", "tensor_pages", "tree_pages", "paged_manifest")),
    *(f"layouts/{noun}.py" for noun in ("file", "loose", "packed", "directory", "chunk_index")),
    *(
        "reading/blocks.py",
        "reading/fetch.py",
        "reading/neighbours.py",
        "maintenance/verification.py",
        "storage/local.py",
    ),
    "migration/formats.py",
    *("format/patch.py", "reading/patched.py", "reading/bases.py"),
)
_FLIPPED: dict[type, type] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is},
}
# Functions that no request of the protocol can reach or tell apart: those that write; mapping and reopening; names as
# the command line shows them; Python's own forms of an index; select=; the exact place of a damaged frame, which
# SPEC.md leaves to the reader; what a file that is no checkpoint might be; how reads are cut, joined and dealt to
# threads, which gives the same; resume=; paths as texts; how an upgrade copies; closing; bounds of memory and of time,
# which untestable.json has [LIM-007] [LIM-008]; how many patches are read one through another, and what helps whoever
# gave another base.
OUT_OF_REACH = {
    *("write", "write_chunk", "put", "encode", "escape"),
    *("encode_tensors", "encode_pages", "paged", "is_paged", "some"),
    *("format/tree_pages.py:runs", "format/chunk_table.py:between"),
    *("codec_asked", "grid_for", "documents", "left_out"),
    *("map", "was_replaced", "integer_text", "path_text", "frame_damage"),
    *("placement_of", "format/grid.py:select", "format/grid.py:spans", "maintenance/verification.py:batches"),
    *("layouts/packed.py:commit", "layouts/directory.py:commit", "format/names.py:find", "migration/formats.py:kept"),
    *(
        "reading/blocks.py:run",
        "reading/blocks.py:read_blocks",
        "reading/neighbours.py:runs_of",
        "reading/neighbours.py:groups_of",
        "storage/local.py:copy_to",
        "storage/local.py:close",
    ),
    *(
        "reading/blocks.py:admit",
        "reading/blocks.py:admit_chunk",
        "format/placement.py:counts",
        "maintenance/verification.py:works",
    ),
    *(f"reading/patched.py:{name}" for name in ("readers", "admit", "admit_cells", "mapped", "divide", "read_cells")),
    *("format/patch.py:xor", "reading/patched.py:logical", "reading/bases.py:check_length"),
    *(f"reading/bases.py:{name}" for name in ("giving", "wrong", "places", "bases_given")),
}
OUT_OF_REACH_CLASSES = {"_Omitted", "Cutter", "Paged", "_Tensors"}


class Mutant(NamedTuple):
    """One mutation: the module, the line, what was changed, and the module's new text."""

    module: str
    line: int
    change: str
    text: str


def mutants(module: str) -> Iterator[Mutant]:
    """Every mutation of one module."""
    source = (PACKAGE / module).read_text()
    for number in range(sum(1 for _ in _places(module, ast.parse(source)))):
        tree = ast.parse(source)
        place = list(_places(module, tree))[number]
        before = ast.unparse(place.node)
        place.mutate()
        change = f"{before.splitlines()[0][:70]} -> {place.what}"
        yield Mutant(module, place.node.lineno, change, ast.unparse(ast.fix_missing_locations(tree)))


class _Place(NamedTuple):
    node: ast.expr | ast.stmt
    what: str
    mutate: Callable[[], None]


def _places(module: str, tree: ast.Module) -> Iterator[_Place]:
    """Where a module can be mutated, in order; what the protocol cannot reach is left out."""
    for node in _reading(module, tree):
        match node:
            case ast.Compare(ops=[operator]) if type(operator) in _FLIPPED:
                flipped = _FLIPPED[type(operator)]()
                yield _Place(node, type(flipped).__name__, partial(setattr, node, "ops", [flipped]))
            case ast.BoolOp():
                other: ast.boolop = ast.Or() if isinstance(node.op, ast.And) else ast.And()
                yield _Place(node, type(other).__name__, partial(setattr, node, "op", other))
            case ast.If():
                negated = ast.UnaryOp(ast.Not(), node.test)
                yield _Place(node, "not", partial(setattr, node, "test", negated))
                if all(isinstance(statement, ast.Raise) for statement in node.body):
                    yield _Place(node, "no raise", partial(setattr, node, "body", [ast.Pass()]))
            case ast.BinOp(op=ast.Add() | ast.Sub()) if isinstance(node.right, ast.Constant) and node.right.value == 1:
                yield _Place(node, "off by one", partial(setattr, node, "right", ast.Constant(2)))


def _reading(module: str, tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.FunctionDef(name=name) if {name.strip("_"), f"{module}:{name.strip('_')}"} & OUT_OF_REACH:
                continue
            case ast.ClassDef(name=name) if name in OUT_OF_REACH_CLASSES:
                continue
            case ast.JoinedStr() | ast.If(test=ast.Name("TYPE_CHECKING")):  # words for people; nothing at run time
                continue
        yield node
        yield from _reading(module, node)


def chosen(count: int, seed: int) -> list[Mutant]:
    """`count` mutants, spread over the modules as their places are, always the same for a seed; all of them for 0."""
    everything = [mutant for module in MODULES for mutant in mutants(module)]
    return sorted(random.Random(seed).sample(everything, min(count, len(everything)))) if count else everything


def killer(mutant: Mutant, cases: list[Case], timeout: float) -> str:
    """The id of the first case that fails with a mutant, "" if it survives."""
    with tempfile.TemporaryDirectory(prefix="ckptfmt-mutant-") as name:
        shutil.copytree(PACKAGE, Path(name) / "ckptfmt", ignore=shutil.ignore_patterns("__pycache__"))
        (Path(name) / "ckptfmt" / mutant.module).write_text(mutant.text)
        environment = {"PYTHONPATH": os.pathsep.join([name, str(HERE.parent)]), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-P", "-m", "conformance.implementations.ckptfmt"]
        with Implementation(command, timeout, environment) as implementation:
            for start in range(0, len(cases), 25):
                for result in run_cases(implementation, cases[start : start + 25]):
                    if result.outcome in (FAILED, BROKEN):
                        return result.case.id
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m conformance.mutants", description=__doc__)
    parser.add_argument("--count", type=int, default=60, help="how many, at random; 0: all")
    parser.add_argument(
        "--part", default="1/1", help="K/N: the K-th of N parts of them, to be run apart from the others"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=10.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cases = read_cases()
    random.Random(0).shuffle(cases)  # so that most mutants meet a case that notices early
    part, parts = map(int, options.part.split("/"))
    picked = chosen(options.count, options.seed)[part - 1 :: parts]
    rows = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for mutant, case in zip(picked, pool.map(lambda one: killer(one, cases, options.timeout), picked), strict=True):
            rows.append(
                {"module": mutant.module, "line": mutant.line, "change": mutant.change, "caught_by": case or None}
            )
            print(f"{case or 'SURVIVES':36} {mutant.module}:{mutant.line} {mutant.change}", flush=True)
    caught = sum(row["caught_by"] is not None for row in rows)
    print(f"{caught} of {len(rows)} mutants caught: {caught / len(rows):.1%}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
