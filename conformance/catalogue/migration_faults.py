"""Migrations that must be refused: broken documents, plans with faults, chains that cannot be.

docs/spec/migrations.md.
"""

from __future__ import annotations

from typing import Any

from . import edit
from .migrating import (
    EXTERN,
    ONE,
    TWO,
    WIDEN,
    Document,
    document,
    move,
    refused,
)

# ---- documents that break the specification

_rule = move("a", "b")
DOCUMENTS: dict[str, tuple[str, str, Any]] = {
    "version": ("A version of the form that is not 1.", "MIG-001", {**document(_rule), "ckptfmt_migration": 2}),
    "version-missing": (
        "Without the version of the form.",
        "MIG-001",
        {k: v for k, v in document(_rule).items() if k != "ckptfmt_migration"},
    ),
    "no-rules": ("Without rules.", "MIG-001", {k: v for k, v in document(_rule).items() if k != "rules"}),
    "no-schema": ("Without a schema.", "MIG-001", {k: v for k, v in document(_rule).items() if k != "schema"}),
    "further-key": ("A key that the table does not have.", "MIG-001", document(_rule, author="x")),
    "same-versions": ("Two versions that do not differ.", "MIG-001", document(_rule, end="1")),
    "empty-schema": ("An empty schema.", "MIG-001", {**document(_rule), "schema": ""}),
    "empty-version": ("An empty version.", "MIG-001", document(_rule, start="")),
    "version-number": ("A version that is a number.", "MIG-001", {**document(_rule), "to": 2}),
    "rules-map": ("Rules that are a map.", "MIG-001", {**document(), "rules": {"a": "b"}}),
    "rest": ("Another word for the rest.", "MIG-001", document(_rule, rest="drop")),
    "companions": ("Companions that are a text.", "MIG-001", document(_rule, companions="m")),
    "companions-capture": ("A companion with a capture.", "MIG-001", document(_rule, companions=["{m}"])),
    "at-capture": ("An `at` with a capture.", "MIG-001", document(_rule, at="{model}")),
    "parameter-negative": ("A negative parameter.", "MIG-001", document(_rule, parameters={"n": -1})),
    "parameter-text": ("A parameter that is a text.", "MIG-001", document(_rule, parameters={"n": "2"})),
    "parameter-map": ("A parameter with a further key.", "MIG-001", document(_rule, parameters={"n": {"env": "N"}})),
    "rule-text": ("A rule that is a text.", "MIG-004", document("a")),  # type: ignore[arg-type]
    "rule-no-to": ("A rule without `to`.", "MIG-004", document({"from": "a"})),
    "rule-key": ("A rule with a further key.", "MIG-004", document({**_rule, "via": "c"})),
    "rule-number": ("A source that is a number.", "MIG-004", document(move(3, "b"))),
    "rule-with": ("Operators that are a map.", "MIG-004", document({**_rule, "with": {"op": "neg"}})),
    "rule-optional": ("`optional` that is a number.", "MIG-004", document({**_rule, "optional": 1})),
    "operator-unknown": ("An unknown operator.", "MIG-004", document(move("a", "b", {"op": "exec"}))),
    "operator-none": ("A map without `op`.", "MIG-004", document(move("a", "b", {}))),
    "operator-key": ("An operator with a further key.", "MIG-004", document(move("a", "b", {"op": "neg", "axis": 0}))),
    "operator-key-missing": ("An operator without a key.", "MIG-004", document(move("a", "b", {"op": "stack"}))),
    "operator-axis": ("A negative axis.", "MIG-004", document(move("a", "b", {"op": "unstack", "axis": -1}))),
    "operator-dtype": ("An unknown dtype.", "MIG-004", document(move("a", "b", {"op": "cast", "dtype": "float12"}))),
    "operator-scale": ("A scale of 0.", "MIG-004", document(move("a", "b", {"op": "scale", "by": 0}))),
    "operator-size": (
        "A size that is a float.",
        "MIG-004",
        document(move("a", ["b"], {"op": "split", "axis": 0, "sizes": [1.5]})),
    ),
    "operator-size-text": (
        "A size that calls a function.",
        "MIG-004",
        document(move("a", ["b"], {"op": "split", "axis": 0, "sizes": ["len(x)"]})),
    ),
    "pattern-brace": ("A brace that is not closed.", "MIG-003", document(move("{a", "b"))),
    "pattern-closing": ("A closing brace alone.", "MIG-003", document(move("a}", "b"))),
    "pattern-beside": ("A capture with a literal after it.", "MIG-003", document(move("{a}b", "{a}"))),
    "pattern-text-number": ("A text capture after a literal.", "MIG-003", document(move("x{a}", "{a}"))),
    "pattern-upper": ("A capture in upper case.", "MIG-003", document(move("{A}", "{A}"))),
    "pattern-repeat": ("A capture twice in a pattern.", "MIG-003", document(move("{a}.{a}", "{a}.{a}"))),
    "pattern-kinds": ("A capture declared in two ways.", "MIG-003", document(move("a.{i:int}", "b.{i:digits}"))),
    "pattern-two-rests": ("Two `**`.", "MIG-003", document(move("{a:**}.{b:**}", "{a}.{b}"))),
    "pattern-float": ("A key that is a float.", "MIG-003", document(move([["a", 1.5]], "b"))),
    "capture-missing": ("A target lacks a capture.", "MIG-006", document(move("l.{name}", "m"))),
    "capture-two-numbers": (
        "Two further numbers in a source.",
        "MIG-006",
        document(move("l.{i:int}.{j:int}", "m", {"op": "stack", "axis": 0})),
    ),
    "capture-one-side": (
        "A source lacks a capture that tells instances apart.",
        "MIG-006",
        document(move(["l.{i:int}.q", "k"], "l.{i}.qk", {"op": "concat", "axis": 0, "sizes": [1, 1]})),
    ),
    "rearrange-lost": (
        "An axis on one side alone.",
        "MIG-007",
        document(move("a", "b", {"op": "rearrange", "pattern": "x y -> x"})),
    ),
    "rearrange-twice": (
        "An axis twice.",
        "MIG-007",
        document(move("a", "b", {"op": "rearrange", "pattern": "x x -> x x"})),
    ),
    "rearrange-open": (
        "A parenthesis that is not closed.",
        "MIG-007",
        document(move("a", "b", {"op": "rearrange", "pattern": "x (y -> x y"})),
    ),
    "rearrange-axes": (
        "The size of an axis that is not there.",
        "MIG-007",
        document(move("a", "b", {"op": "rearrange", "pattern": "x y -> y x", "axes": {"z": 1}})),
    ),
    "rearrange-name": (
        "An axis that begins with a digit.",
        "MIG-007",
        document(move("a", "b", {"op": "rearrange", "pattern": "1x y -> y 1x"})),
    ),
    "items": (
        "Two items and one target.",
        "MIG-004",
        document(move("a", "b", {"op": "split", "axis": 1, "sizes": [1, 2]})),
    ),
    "items-few": ("One item and two targets.", "MIG-004", document(move("a", ["b", "c"]))),
    "items-split": (
        "A split of two items.",
        "MIG-004",
        document(move(["a", "d"], ["b", "c"], {"op": "split", "axis": 1, "sizes": [1, 2]})),
    ),
    "items-on": ("An item that is not there.", "MIG-004", document(move("a", "b", {"op": "neg", "on": [1]}))),
    "copy-late": (
        "A copy that does not stand first.",
        "MIG-008",
        document(move("a", "b", {"op": "neg"}, {"op": "copy"})),
    ),
    "no-source": ("A rule without sources that does not fill.", "MIG-008", document(move([], "b", {"op": "neg"}))),
    "no-target": ("A rule without targets that does not drop.", "MIG-008", document(move("a", []))),
    "drop-target": ("A drop with a target.", "MIG-008", document(move("a", "b", {"op": "drop"}))),
    "drop-early": (
        "A drop that does not stand last.",
        "MIG-008",
        document(move("a", [], {"op": "drop"}, {"op": "neg"})),
    ),
}
for _name, (_title, _spec, _made) in DOCUMENTS.items():
    refused(f"migrate-bad-{_name}", _title, _spec, [_made], "bad-migration")
for _name in ("os.system", "builtins.eval", "numpy.load", "conformance.reverse@2"):
    refused(
        f"migrate-bad-extern-{_name.replace('.', '-').replace('@', '-')}",
        f"{_name} is no function that the program registered: nothing is looked up.",
        "MIG-009 SEC-001",
        [document(move("a", "b", {"op": "extern", "name": _name}))],
        "unknown-extern",
    )
# ---- faults of plans

_also = move("a", "d", {"op": "alias"})
_HALF = {"op": "fill", "value": 0.5}
FAULTS: dict[str, tuple[str, str, list[Document], dict[str, Any], int]] = {
    "left": ("A tensor that no rule takes.", "MIG-011", [], {}, 1),
    "no-match": ("A rule that matches nothing.", "MIG-011", [move("a", "b"), move("x", "y")], {}, 1),
    "consumed-twice": ("A tensor that two rules take.", "MIG-011", [move("a", "b"), move("{n:a}", "c.{n}")], {}, 1),
    "produced-twice": (
        "A path that two rules produce.",
        "MIG-011",
        [move("a", "b"), move("a", "b", {"op": "copy"})],
        {},
        1,
    ),
    "below": (
        "A target below another.",
        "MIG-011",
        [move("a", "b"), move("a", "b/c", {"op": "copy"})],
        {},
        1,
    ),
    "produced-and-kept": (
        "A target where a plain value stays.",
        "MIG-011",
        [move("a", "n")],
        {},
        1,
    ),
    "parameter": ("A parameter without value.", "MIG-010", [move("a", "b")], {"parameters": {"n": None}}, 1),
    "parameter-metadata": (
        "A parameter whose metadata are no unsigned int.",
        "MIG-010",
        [move("a", "b")],
        {"parameters": {"n": {"metadata": "config"}}},
        1,
    ),
    "cast": ("A cast from another dtype.", "MIG-013", [move("a", "b", WIDEN)], {}, 1),
    "axis": (
        "An axis that is not there.",
        "MIG-013",
        [move("a", "b", {"op": "slice", "axis": 2, "before": 1, "after": 0})],
        {},
        1,
    ),
    "slice": (
        "A slice of more than there is.",
        "MIG-013",
        [move("a", "b", {"op": "slice", "axis": 0, "before": 2, "after": 1})],
        {},
        1,
    ),
    "sizes": (
        "Sizes whose sum is not the axis.",
        "MIG-013",
        [move("a", ["b", "c"], {"op": "split", "axis": 1, "sizes": [1, 1]})],
        {},
        1,
    ),
    "division": (
        "A division with a remainder.",
        "MIG-010",
        [move("a", ["b", "c"], {"op": "split", "axis": 1, "sizes": ["3/2", 2]})],
        {},
        1,
    ),
    "rearrange": (
        "A pattern of another rank.",
        "MIG-007",
        [move("a", "b", {"op": "rearrange", "pattern": "x -> x"})],
        {},
        1,
    ),
    "rearrange-sizes": (
        "Two sizes in one axis that cannot be told.",
        "MIG-007",
        [move("a", "b", {"op": "rearrange", "pattern": "(x y) z -> x y z"})],
        {},
        1,
    ),
    "neg-ints": ("The sign bit of ints.", "MIG-013", [move("a", "b", {"op": "neg"})], {}, 1),
    "fill-fraction": ("A fraction in a tensor of ints.", "MIG-013", [move("a", "a"), move("a", "b", _HALF)], {}, 1),
    "plain": ("An operator for a plain value.", "MIG-011", [move("a", "a"), move("n", "m", {"op": "neg"})], {}, 1),
    "together": (
        "Faults are reported all together.",
        "MIG-013",
        [move("x", "y"), move("a", "b", {"op": "rearrange", "pattern": "x -> x"})],
        {"parameters": {"n": None}},
        3,
    ),
}
for _name, (_title, _spec, _rules, _more, _count) in FAULTS.items():
    refused(
        f"migrate-fault-{_name}",
        _title,
        _spec,
        [document(*_rules, **_more)],
        "migration-mismatch",
        faults=_count,
    )
refused(
    "migrate-fault-gap",
    "Numbers with a gap cannot be gathered.",
    "MIG-006",
    [document(move("h.{i:int}", "h", {"op": "stack", "axis": 0}), rest="keep")],
    "migration-mismatch",
    base="migrate-pattern-minus",
    steps=edit("/tree/1/2", "h.7"),
    faults=1,
)
refused(
    "migrate-fault-list",
    "A list is stacked, not joined.",
    "MIG-013",
    [document(move("h.{i:int}", "h", {"op": "concat", "axis": 0, "sizes": [1, 1]}), rest="keep")],
    "migration-mismatch",
    base="migrate-pattern-minus",
    faults=1,
)
refused(
    "migrate-fault-extern-items",
    "An extern with one result, and two targets.",
    "MIG-004",
    [document(move("w", ["b", "c"], {"op": "extern", "name": EXTERN}))],
    "migration-mismatch",
    base="migrate-extern",
    needs=["extern"],
    faults=1,
)
refused(
    "migrate-fault-companion",
    "An operator that has no form for companions.",
    "MIG-016",
    [document(move("a", "a", {"op": "neg"}), move("c", "c"), at="model", companions=["m"])],
    "migration-mismatch",
    base="migrate-companions",
    faults=1,
)
refused(
    "migrate-fault-first-document",
    "Of a chain, the first document that does not fit is reported.",
    "MIG-013 MIG-012",
    [document(move("a", "b")), document(move("x", "y"), move("b", "b"), start="2", end="3")],
    "migration-mismatch",
    to="3",
    faults=1,
)
refused(
    "migrate-fault-before-reading",
    "A plan's faults are found before any tensor is read, damaged ones too.",
    "MIG-013",
    [document(move("x", "y"), move("a", "b"))],
    "migration-mismatch",
    steps=[{"do": "flip_bit", "at": {"region": {"tensor": ["a"], "chunk": 0}, "offset": 3}, "bit": 0}],
    faults=1,
)
refused(
    "migrate-damaged",
    "Damage is no migration: nothing is written.",
    "BLK-004 PUB-007",
    [document(move("a", "b"))],
    "block-digest",
    steps=[{"do": "flip_bit", "at": {"region": {"tensor": ["a"], "chunk": 0}, "offset": 3}, "bit": 0}],
)

# ---- chains that are refused

CHAINS: dict[str, tuple[str, str, list[Document], str, dict[str, Any]]] = {
    "none": ("No chain leads there.", "MIG-012", [ONE], "no-migration", {"to": "3"}),
    "no-documents-of-schema": (
        "Documents of another schema.",
        "MIG-012",
        [{**ONE, "schema": "t"}],
        "no-migration",
        {},
    ),
    "against-the-edge": (
        "An edge in the other direction.",
        "MIG-012",
        [document(start="2", end="1")],
        "no-migration",
        {},
    ),
    "two": (
        "Two chains lead there.",
        "MIG-012",
        [ONE, document(start="1", end="3"), TWO],
        "ambiguous-migration",
        {"to": "3"},
    ),
    "two-documents": (
        "Two documents for one step.",
        "MIG-012",
        [ONE, document(move("a", "c"))],
        "ambiguous-migration",
        {},
    ),
}
for _name, (_title, _spec, _documents, _code, _more) in CHAINS.items():
    refused(f"migrate-chain-{_name}", _title, _spec, list(_documents), _code, **_more)
refused(
    "migrate-chain-no-schema",
    "A checkpoint without a schema has no version to start from.",
    "MIG-012",
    [ONE],
    "no-migration",
    base="tree-base",
)
BACKWARDS: tuple[tuple[str, str, Document, Any, dict[str, Any]], ...] = (
    ("lossy", "A lossy chain backwards, unasked.", {"op": "scale", "by": 4}, "a", {}),
    ("irreversible", "A chain that drops something has no way back.", {"op": "drop"}, [], {"lossy": True}),
    ("cast", "A cast without `from` has no way back.", {"op": "cast", "dtype": "int8"}, "a", {"lossy": True}),
)
for _name, _title, _operator, _target, _options in BACKWARDS:
    refused(
        f"migrate-backwards-{_name}",
        _title,
        "MIG-014",
        [document(move("a", _target, _operator), start="0", end="1")],
        "irreversible-migration",
        to="0",
        down=True,
        **_options,
    )
