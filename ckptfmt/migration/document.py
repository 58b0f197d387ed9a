"""Migration documents: data in JSON, msgpack or Python, parsed once and checked whole (docs/spec/migrations.md)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgpack

from ..calls import takes
from ..errors import CkptError, fault, os_fault
from ..format.names import Path
from ..near import did_you_mean
from ..storage import path_of
from .operators import Extern, LossClass
from .patterns import Pattern, literal_path, parse_patterns
from .steps import RuleStep, parse_step

EXAMPLES = os.path.join(os.path.dirname(__file__), "examples")  # documents that come with this package
EXAMPLE = "example:"  # before the name of one, where a file is asked for
VERSION = 1  # of the form of documents [MIG-001]
_KEYS = {"ckptfmt_migration", "schema", "from", "to", "description", "parameters", "at", "companions", "rest", "rules"}
_NEEDED = {"ckptfmt_migration", "schema", "from", "to", "rules"}
_RULE_KEYS = {"from", "with", "to", "optional"}
Parameter = int | Path | None  # a value, where it stands in the metadata, or None: to be given


@dataclass(frozen=True, slots=True)
class Rule:
    """Sources, the operators that they pass through, and targets. `consumes`: whether the sources are gone then."""

    number: int
    sources: tuple[Pattern, ...]
    steps: tuple[RuleStep, ...]
    targets: tuple[Pattern, ...]
    optional: bool = False

    @property
    def consumes(self) -> bool:
        return all(step.operator.consumes for step in self.steps[:1])

    @property
    def shared(self) -> frozenset[str]:
        """The captures that tell the instances of the rule apart: those on both sides, or all if it drops."""
        sides = [_captures(side) for side in (self.sources, self.targets)]
        return sides[0] & sides[1] if self.targets else sides[0]

    @property
    def loss(self) -> LossClass:
        return max((step.operator.loss for step in self.steps), default=LossClass.EXACT)

    @property
    def items(self) -> int | None:
        """How many items there are at the end; None where only the plan can tell. Raises ValueError for an operator
        that does not take those before it. [MIG-004]"""
        items: int | None = len(self.sources)
        for operator, on in self.steps:
            if items is None:
                return None
            if on and max(on) >= items:
                raise ValueError(f"`on` names item {max(on)} of {items} [MIG-004]")
            items = operator.count(items)
        return items

    def inverse(self) -> Rule:
        """The rule that undoes this one; ValueError if there is none."""
        if not self.consumes:  # what it added goes away again
            return Rule(self.number, self.targets, (RuleStep(self._first_inverse()),), (), self.optional)
        steps = []
        for operator, on in reversed(self.steps):
            inverse = operator.inverse()
            if inverse is None:
                raise ValueError(f"{self} has no inverse")
            steps.append(RuleStep(inverse, on))
        return Rule(self.number, self.targets, tuple(steps), self.sources, self.optional)

    def _first_inverse(self) -> Any:
        return self.steps[0].operator.inverse()

    def for_companions(self) -> Rule:
        """The rule as it applies to companion trees; ValueError if it does not. [MIG-016]"""
        steps = [(step.operator.for_companions(), step.on) for step in self.steps]
        kept = tuple(RuleStep(operator, on) for operator, on in steps if operator is not None)
        return replace(self, steps=kept, optional=True)

    def __str__(self) -> str:
        sides = [", ".join(pattern.text for pattern in side) or "nothing" for side in (self.sources, self.targets)]
        return f"rule {self.number} ({sides[0]} → {sides[1]})"


@dataclass(frozen=True, slots=True)
class Migration:
    """One edge in the graph of versions of a schema, which `Migration.parse` makes of a document. `digest` is the
    sha256 of the document [MIG-018]; `loss` the worst of its operators, read forwards; `backwards` marks an inverse."""

    schema: str
    start: str
    end: str
    rules: tuple[Rule, ...]
    parameters: Mapping[str, Parameter]
    at: Path
    companions: tuple[Path, ...]
    keeps_rest: bool
    description: str
    digest: bytes
    loss: LossClass
    backwards: bool = False

    def inverse(self) -> Migration:
        """Return the migration from `end` to `start`; raises `irreversible-migration`. [MIG-014]"""
        if self.loss == LossClass.IRREVERSIBLE:
            lost = ", ".join(str(rule) for rule in self.rules if rule.loss == LossClass.IRREVERSIBLE)
            raise fault("irreversible-migration", f"{self} cannot be undone: {lost}")
        rules = tuple(rule.inverse() for rule in self.rules)
        return replace(self, start=self.end, end=self.start, rules=rules, backwards=not self.backwards)

    def __str__(self) -> str:
        return f"{self.schema}: {self.start} → {self.end}"

    @classmethod
    @takes()
    def parse(cls, document: Any, externs: Mapping[str, Extern] | None = None) -> Migration:
        """Check a document and return its migration; `externs` are the functions that it may name. Raises
        `bad-migration` or `unknown-extern`."""
        try:
            return _migration(document, externs or {})
        except ValueError as error:
            if isinstance(error, CkptError):
                raise
            raise fault("bad-migration", f"{_name_of(document)}: {error}") from error


def read_documents(path: str | os.PathLike[str]) -> list[Any]:
    """The documents of a file: one map or an array of them, in JSON or msgpack. [MIG-002] `example:NAME` is one that
    comes with this package."""
    name = path_of(path)
    if name.startswith(EXAMPLE):
        name = os.path.join(EXAMPLES, f"{_example(name.removeprefix(EXAMPLE))}.json")
    try:
        with open(name, "rb") as file:
            raw = file.read()
    except OSError as error:
        raise os_fault(error, "cannot read the migrations", name) from error
    try:
        if raw[:1] in (b"{", b"[", b" ", b"\n", b"\r", b"\t"):
            found = json.loads(raw, object_pairs_hook=_unique, parse_constant=_no_constant)
        else:
            found = msgpack.unpackb(raw, strict_map_key=True, object_pairs_hook=_unique)
    except (ValueError, RecursionError, msgpack.UnpackException) as error:
        raise fault("bad-migration", f"neither JSON nor msgpack: {error}", path=name) from error
    return found if type(found) is list else [found]


def _example(name: str) -> str:
    known = sorted(entry.removesuffix(".json") for entry in os.listdir(EXAMPLES))
    if name not in known:
        message = f"there is no example {name!r}{did_you_mean(name, known)}"
        raise fault("bad-option", message, found=name, expected=" or ".join(known))
    return name


def _unique(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a map repeats a key")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _name_of(document: Any) -> str:
    match document:
        case {"schema": str(schema), "from": str(start), "to": str(end)}:
            return f"{schema}: {start} → {end}"
    return "migration"


def _migration(document: Any, externs: Mapping[str, Extern]) -> Migration:
    if type(document) is not dict or document.get("ckptfmt_migration") != VERSION:
        raise ValueError(f"a migration is a map with `ckptfmt_migration`: {VERSION} [MIG-001]")
    unknown, missing = document.keys() - _KEYS, _NEEDED - document.keys()
    if unknown or missing:
        raise ValueError(f"unknown keys: {sorted(unknown)}, missing keys: {sorted(missing)} [MIG-001]")
    texts = [document[key] for key in ("schema", "from", "to")]
    if not all(type(text) is str and text for text in texts) or texts[1] == texts[2]:
        raise ValueError("`schema`, `from` and `to` are strings that are not empty; the versions differ [MIG-001]")
    if type(document["rules"]) is not list:
        raise ValueError("`rules` is an array [MIG-001]")
    if document.get("rest", "refuse") not in ("keep", "refuse"):
        raise ValueError('`rest` is "keep" or "refuse" [MIG-011]')
    companions = document.get("companions", [])
    if type(companions) is not list:
        raise ValueError("`companions` is an array of paths [MIG-016]")
    rules = tuple(_rule(number, rule, externs) for number, rule in enumerate(document["rules"]))
    return Migration(
        schema=texts[0],
        start=texts[1],
        end=texts[2],
        rules=rules,
        parameters=_parameters(document.get("parameters", {})),
        at=literal_path(document.get("at", "")),
        companions=tuple(map(literal_path, companions)),
        keeps_rest=document.get("rest") == "keep",
        description=str(document.get("description", "")),
        digest=hashlib.sha256(msgpack.packb(_sorted(document))).digest(),
        loss=max((rule.loss for rule in rules), default=LossClass.EXACT),
    )


def _sorted(value: Any) -> Any:
    """The same value with the keys of maps in C-string order. [MIG-018]"""
    if isinstance(value, Mapping):
        return {key: _sorted(value[key]) for key in sorted(value, key=str.encode)}
    return [_sorted(item) for item in value] if isinstance(value, list | tuple) else value


def _parameters(document: Any) -> dict[str, Parameter]:
    if type(document) is not dict:
        raise ValueError("`parameters` is a map [MIG-010]")
    found: dict[str, Parameter] = {}
    for name, value in document.items():
        match value:
            case None:
                found[name] = None
            case int() if type(value) is int and value >= 0:
                found[name] = value
            case {"metadata": path, **rest} if not rest:
                found[name] = literal_path(path)
            case _:
                raise ValueError(f"the parameter {name!r} is an int, null or a map of `metadata` [MIG-010]")
    return found


def _rule(number: int, document: Any, externs: Mapping[str, Extern]) -> Rule:
    where = f"rule {number}"
    if type(document) is not dict or document.keys() - _RULE_KEYS or not {"from", "to"} <= document.keys():
        raise ValueError(f"{where} is a map of `from`, `to` and, if wanted, `with` and `optional` [MIG-004]")
    steps = document.get("with", [])
    if type(steps) is not list or type(document.get("optional", False)) is not bool:
        raise ValueError(f"{where}: `with` is an array and `optional` a bool [MIG-004]")
    try:
        sides = [_side(document[key]) for key in ("from", "to")]
        patterns = parse_patterns([*sides[0], *sides[1]])
        operators = tuple(parse_step(step, externs) for step in steps)
        sources, targets = tuple(patterns[: len(sides[0])]), tuple(patterns[len(sides[0]) :])
        rule = Rule(number, sources, operators, targets, document.get("optional", False))
        _check(rule)
    except KeyError as error:
        raise fault("unknown-extern", f"{where} requires the extern {error.args[0]!r} [MIG-009]") from None
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return rule


def _side(written: Any) -> list[Any]:
    """The patterns of a side: a text, or an array whose items are texts or arrays of keys."""
    if type(written) is str:
        return [written]
    if type(written) is list and all(type(item) in (str, list) for item in written):
        return list(written)
    raise ValueError("a side is a pattern text or an array of patterns [MIG-004]")


def _captures(patterns: tuple[Pattern, ...]) -> frozenset[str]:
    return frozenset().union(*(pattern.captures for pattern in patterns))


def _check(rule: Rule) -> None:
    """The rules for captures [MIG-006], for operators that add or drop [MIG-008], and for items. [MIG-004]"""
    shared = rule.shared
    for pattern in (*rule.sources, *rule.targets):
        local = pattern.captures - shared
        if shared - pattern.captures:
            raise ValueError(f"{pattern.text!r} lacks the capture {min(shared - pattern.captures)!r} [MIG-006]")
        if len(local) > 1 or any(pattern.kinds[name].form not in ("int", "digits") for name in local):
            raise ValueError(f"{pattern.text!r} may gather or scatter over one int capture only [MIG-006]")
    names = [type(step.operator).__name__ for step in rule.steps]
    if any(not step.operator.consumes for step in rule.steps[1:]):
        raise ValueError("alias, copy and fill stand first [MIG-008]")
    if ("Drop" in names) != (not rule.targets) or names.count("Drop") > 1 or "Drop" in names[:-1]:
        raise ValueError("a rule without targets, and no other, ends with drop [MIG-008]")
    if not rule.sources and names[:1] != ["Fill"]:
        raise ValueError("a rule without sources begins with fill [MIG-008]")
    items = rule.items
    if items not in (None, len(rule.targets)):
        raise ValueError(f"{items} items at the end for {len(rule.targets)} targets [MIG-004]")
