"""Planning: a chain of migrations over the names, shapes and dtypes of a checkpoint (docs/spec/migrations.md). Pure.

The leaves of a tree are entries here: lazy tensors, and plain values, which can be moved, aliased and dropped. Each
migration turns one tree into the next, so a chain of any length is one plan, read in one pass. All faults of a
migration are found before any is raised, and no tensor is read.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..brief import Brief
from ..errors import fault
from ..format.names import Path, path_label
from ..format.tree import Tree
from ..frameworks.overflows import Overflow, TensorCast
from .containers import build_tree, leaves_of
from .document import Migration, Rule
from .nodes import LazyNode, Leaf, roundings
from .operators import Alias, Context, Drop, Extern, Item, LossClass
from .patterns import Captures, Pattern, near_paths, tokens_of


class PlainLeaf(NamedTuple):
    """A leaf that is no tensor."""

    value: Any


HINTED = 4  # most faults of a migration that name near paths

Entry = LazyNode | PlainLeaf
PlannedLeaves = dict[Path, Entry]


@dataclass(frozen=True, slots=True, repr=False)
class MigrationPlan(Brief):
    """What a chain makes of one checkpoint. `source` and `layout`: the leaves before and after, in order. `tree`: the
    result, with entries as its leaves. `parameters`: the values used by each migration of the chain."""

    chain: tuple[Migration, ...]
    source: PlannedLeaves
    tree: Tree
    parameters: tuple[dict[str, int], ...]

    @property
    def layout(self) -> PlannedLeaves:
        """The leaves of the result by their paths, in order."""
        return _leaves(self.tree)

    @property
    def loss(self) -> LossClass:
        """The worst of the losses of its migrations."""
        return max((migration.loss for migration in self.chain), default=LossClass.EXACT)

    @property
    def overflows(self) -> tuple[Overflow, ...]:
        """The tensors of the result of which elements lie beyond the range of their dtype, or may. [DTYPE-009]"""
        return tuple(kind.overflow(beyond) for kind, beyond in self.roundings().items() if beyond != 0)

    def roundings(self) -> dict[TensorCast, int | None]:
        """Tell what is rounded on the way to each tensor, and how many elements are foretold to lie beyond the range of
        the dtype; None if some may. An alias does not count again."""
        first: dict[LazyNode, Path] = {}
        for path, entry in self.layout.items():
            if not isinstance(entry, PlainLeaf):
                first.setdefault(entry, path)
        found: dict[TensorCast, int | None] = {}
        for entry, path in first.items():
            for node in roundings(entry):
                kind = TensorCast(path_label(path), node.found, node.dtype, math.prod(entry.shape))
                counts = found.get(kind, 0), node.foretold
                found[kind] = None if None in counts else sum(counts)  # type: ignore[arg-type]
        return found

    @property
    def is_rename(self) -> bool:
        """Whether every tensor of the result is one of the source, bit for bit."""
        return all(isinstance(entry, PlainLeaf | Leaf) for entry in self.layout.values())


def plan_chain(
    chain: tuple[Migration, ...],
    tree: Tree,
    metadata: Any,
    given: Mapping[str, int],
    externs: Mapping[str, Extern],
) -> MigrationPlan:
    """MigrationPlan a chain over a tree whose leaves are entries. `metadata` and `given` hold the values of parameters.

    Raises `bad-option` for a parameter that no migration has, and `migration-mismatch`, whose `report` is a tuple of
    all faults of the first migration that does not fit.
    """
    unknown = given.keys() - {name for migration in chain for name in migration.parameters}
    if unknown:
        known = sorted({name for migration in chain for name in migration.parameters})
        message = f"no migration of the chain has a parameter {min(unknown)!r}"
        raise fault("bad-option", message, found=sorted(unknown), expected=known)
    source, used = _leaves(tree), []
    for migration in chain:
        run = _MigrationRun(migration, _leaves(tree), externs)
        run.find_parameters(metadata, given)
        leaves = run.result()
        if run.faults:
            first = "; ".join(run.faults[:8]) + (f"; and {len(run.faults) - 8} more" if len(run.faults) > 8 else "")
            raise fault("migration-mismatch", f"{migration}: {first}", report=tuple(run.faults))  # [MIG-013]
        tree = build_tree(leaves.items(), tree)  # step by step, so that a chain gives what its steps give
        used.append(run.parameters)
    return MigrationPlan(chain, source, tree, tuple(used))


def _leaves(tree: Tree) -> PlannedLeaves:
    """The entries of a tree; a root that has lost all of them is none."""
    return {path: entry for path, entry in leaves_of(tree) if type(entry) not in (dict, OrderedDict, list, tuple)}


class _Instance(NamedTuple):
    """One application of a rule: the values of its shared captures, the paths that it takes and what stands there."""

    captures: Captures
    paths: list[Path]
    items: list[Item | PlainLeaf]


@dataclass(slots=True)
class _MigrationRun:
    """One migration over one layout."""

    migration: Migration
    layout: PlannedLeaves
    externs: Mapping[str, Extern]
    faults: list[str] = field(default_factory=list)
    parameters: dict[str, int] = field(default_factory=dict)
    consumer: dict[Path, str] = field(default_factory=dict)
    produced: dict[Path, tuple[int, Entry, str]] = field(default_factory=dict)  # rank in the order, entry, rule

    def find_parameters(self, metadata: Any, given: Mapping[str, int]) -> None:
        """[MIG-010]"""
        for name, declared in self.migration.parameters.items():
            if name in given:
                self.parameters[name] = given[name]
                continue
            value: Any = declared
            if isinstance(declared, tuple):
                value = metadata
                for key in declared:
                    value = value.get(key) if isinstance(value, dict) else None
            if type(value) is int and value >= 0:
                self.parameters[name] = value
            else:
                where = (
                    f", and the metadata has none at {path_label(declared)!r}" if isinstance(declared, tuple) else ""
                )
                self.faults.append(f"the parameter {name!r} was not given{where}")

    def result(self) -> PlannedLeaves:
        order = {path: rank for rank, path in enumerate(self.layout)}
        roots = [(self.migration.at, False), *((path, True) for path in self.migration.companions)]
        inside: dict[Path, list[Path]] = {root: [] for root, _ in roots}
        for path in self.layout:
            fits = [root for root, _ in roots if path[: len(root)] == root]
            if fits:
                inside[max(fits, key=len)].append(path)
        for root, is_companion in roots:
            if inside[root] or not is_companion:
                self.apply_at(root, inside[root], is_companion, order)
        covered = {path for paths in inside.values() for path in paths}
        for path, entry in self.layout.items():
            if path not in self.consumer:
                self.keep(path, entry, order[path], path in covered)
        self.check_nesting()
        ranked = sorted(self.produced.items(), key=lambda item: item[1][0])
        return {path: entry for path, (_, entry, _) in ranked}

    def keep(self, path: Path, entry: Entry, rank: int, inside: bool) -> None:
        """What no rule took: plain values and what lies outside stay, tensors must be dropped. [MIG-011]"""
        if inside and not isinstance(entry, PlainLeaf) and not self.migration.keeps_rest:
            self.faults.append(f"{path_label(path)!r} is neither consumed nor dropped")
        else:
            self.produce(path, entry, rank, "what is kept")

    def apply_at(self, root: Path, paths: list[Path], is_companion: bool, order: dict[Path, int]) -> None:
        """Apply all rules to what lies below `root`."""
        tokens = [(path, tokens_of(path[len(root) :])) for path in paths]
        for rule in self.migration.rules:
            try:
                form = rule.for_companions() if is_companion else rule
            except ValueError as error:
                if any(pattern.match(one) is not None for _, one in tokens for pattern in rule.sources):
                    self.faults.append(f"{rule} below {path_label(root)!r}: {error}")
                continue
            for instance in self.instances(form, tokens):
                self.apply(form, instance, root, order)

    def instances(self, rule: Rule, tokens: list[tuple[Path, Any]]) -> Iterable[_Instance]:
        """The instances of a rule, one for each set of values of its shared captures. [MIG-006]"""
        if not rule.sources:
            return [_Instance({}, [], [])]
        matched = [_matches(pattern, tokens, rule.shared) for pattern in rule.sources]
        keys = dict.fromkeys(key for found in matched for key in found)
        if not keys and not rule.optional:
            is_hinted = len(self.faults) < HINTED  # it takes time where there are very many paths
            hints = [near_paths(pattern, [one for _, one in tokens]) for pattern in rule.sources if is_hinted]
            self.faults.append(f"{rule} matches nothing{''.join(hints)}")
        instances = []
        for key in keys:
            captures = dict(zip(sorted(rule.shared), key, strict=True))
            lacking = [p.text for p, found in zip(rule.sources, matched, strict=True) if key not in found]
            if lacking:
                values = ", ".join(f"{name} = {_shown(value)}" for name, value in captures.items())
                self.faults.append(f"{rule}: there is no {' and no '.join(lacking)}{values and f' for {values}'}")
                continue
            gathered = [self.gather(rule, p, found[key]) for p, found in zip(rule.sources, matched, strict=True)]
            if all(item is not None for item in gathered):
                paths = [path for found in matched for path, _ in found[key]]
                instances.append(_Instance(captures, paths, gathered))  # type: ignore[arg-type]
        return instances

    def gather(self, rule: Rule, pattern: Pattern, found: list[tuple[Path, Captures]]) -> Item | PlainLeaf | None:
        """What a source stands for: a leaf, or a list if its pattern has a capture of its own. [MIG-006]"""
        local = pattern.captures - rule.shared
        if not local:
            return self.layout[found[0][0]]
        (name,) = local
        ordered = sorted(found, key=lambda match: match[1][name])
        entries = [self.layout[path] for path, _ in ordered]
        numbers = [captures[name] for _, captures in ordered]
        if numbers != list(range(len(numbers))):
            self.faults.append(f"{rule}: {pattern.text!r} has the numbers {numbers[:8]}, not 0, 1, 2 …")
        elif any(isinstance(entry, PlainLeaf) for entry in entries):
            self.faults.append(f"{rule}: {pattern.text!r} matches values that are no tensors")
        else:
            return tuple(entry for entry in entries if not isinstance(entry, PlainLeaf))
        return None

    def apply(self, rule: Rule, instance: _Instance, root: Path, order: dict[Path, int]) -> None:
        for path in instance.paths if rule.consumes else ():
            if path in self.consumer:
                self.faults.append(f"{path_label(path)!r} is consumed by {self.consumer[path]} and {rule}")
            self.consumer[path] = str(rule)
        where = " and ".join(path_label(path) for path in instance.paths[:3])
        is_plain = any(isinstance(item, PlainLeaf) for item in instance.items)
        if is_plain and not all(isinstance(step.operator, Alias | Drop) for step in rule.steps):
            self.faults.append(f"{rule}: {where} is no tensor")
            return
        items: Any = list(instance.items)
        key = (self.migration.digest, rule.number, root, tuple(sorted(instance.captures.items())))
        context = Context(self.parameters, self.externs, key)
        try:
            for operator, on in rule.steps:
                items = operator.apply(items, on, context)
            targets = list(_targets(rule, items, instance.captures))
        except ValueError as error:
            self.faults.append(f"{rule} at {where or 'its target'}: {error}")
            return
        rank = min((order[path] for path in instance.paths), default=len(order))
        for path, entry in targets:
            self.produce((*root, *path), entry, rank, str(rule))

    def produce(self, path: Path, entry: Entry, rank: int, owner: str) -> None:
        if path in self.produced:
            self.faults.append(f"{path_label(path)!r} is produced by {self.produced[path][2]} and {owner}")
        else:
            self.produced[path] = rank, entry, owner

    def check_nesting(self) -> None:
        """No leaf may lie below another."""
        for path in self.produced:
            above = next((path[:n] for n in range(len(path)) if path[:n] in self.produced), None)
            if above is not None:
                self.faults.append(f"{path_label(path)!r} would lie below the leaf {path_label(above)!r}")


def _matches(
    pattern: Pattern, tokens: list[tuple[Path, Any]], shared: frozenset[str]
) -> dict[tuple[Any, ...], list[tuple[Path, Captures]]]:
    """The paths that match, by the values of the shared captures in the order of their names."""
    found: dict[tuple[Any, ...], list[tuple[Path, Captures]]] = {}
    names = sorted(shared)
    for path, one in tokens:
        captures = pattern.match(one)
        if captures is not None:
            found.setdefault(tuple(captures[name] for name in names), []).append((path, captures))
    return found


def _targets(rule: Rule, items: list[Any], captures: Captures) -> Iterable[tuple[Path, Entry]]:
    """The path of each result; ValueError if results and targets do not agree."""
    if len(items) != len(rule.targets):
        raise ValueError(f"{len(items)} results for {len(rule.targets)} targets")
    for pattern, item in zip(rule.targets, items, strict=True):
        local = pattern.captures - rule.shared
        if bool(local) != (type(item) is tuple):
            one, other = ("a list", "one tensor") if local else ("one tensor", "a list")
            raise ValueError(f"{pattern.text!r} takes {one}, and the result is {other}")
        if not local:
            yield pattern.build(captures), item
            continue
        (name,) = local
        for number, node in enumerate(item):
            yield pattern.build({**captures, name: number}), node


def _shown(value: Any) -> str:
    return "".join(map(str, value)) if isinstance(value, tuple) else str(value)
