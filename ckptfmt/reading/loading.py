"""Loading a tree from an open checkpoint: whole or in part, as arrays or a framework's tensors, mapped, into a target
or like a template (SPEC.md section 12)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from itertools import chain
from operator import add
from typing import Any, NamedTuple

import numpy as np

from ..errors import CkptError, fault
from ..format.casts import cast
from ..format.dtypes import Array
from ..format.limits import uncollected
from ..format.names import Path, path_label, value_at
from ..format.node import Restore
from ..format.tags import TIMES, child_of
from ..format.tree import OMITTED, Tree
from ..frameworks import registry
from ..frameworks.adapter import Adapter, Slot, Tagged, Template, adapter_named, is_stateful, slot, template
from ..frameworks.advice import advice
from ..frameworks.int_keys import as_asked
from ..frameworks.overflows import Tally, TensorCast, name_of
from ..frameworks.receiving import Intake, StatePart, StoredState, everything, receiver
from ..frameworks.target import MatchReport, NameCounts, filled, flatten, is_blank, is_empty, rebuild
from ..patterns import Patterns, selector
from ..progress import Progress, counter
from ..storage import IN_FLIGHT
from .adopting import Adopted
from .below import as_stored, below, leave_out, taken_whole
from .filling import TargetPlace, beside_buffers, fill, grouped, put
from .mapping import Views
from .mismatched import Mismatched, matched, skips
from .neighbours import SMALL
from .parameter_order import warn_of_order
from .selection import no_match
from .shared import shared
from .stand_ins import stand_in, warn_of_times
from .supply import Reads
from .tensor import ArrayLike, Tensor, is_tensor
from .view import CheckpointView

STREAM = 16 << 20  # bytes of mapped tensors that are verified at a time, while a processor's cache holds them


class _Object(NamedTuple):
    """A stateful object of a target: where it stands, how it is filled, and whose tensors it is handed."""

    at: Path
    intake: Intake
    adapter: Adapter | None


class _Fit(NamedTuple):
    """A target beside a checkpoint: what is filled in place (None for leaves that are no tensors), the objects in it,
    the plain values for what it has nothing in, how it differs, and how many names there are on both sides."""

    slots: dict[Path, Slot | None]
    objects: list[_Object]
    opened: dict[Path, frozenset[Path]]
    stored: Mapping[Path, Any]
    report: MatchReport
    names: NameCounts


class Loader:
    """One load of a checkpoint; the options are those of `ckptfmt.load`."""

    def __init__(
        self,
        view: CheckpointView[Any],
        *,
        select: Patterns = None,
        into: Tree = None,
        like: Tree = None,
        framework: str | Adapter | None = None,
        mmap: bool = False,
        verify: bool | None = None,
        strict: bool = True,
        cast: bool = False,
        mismatched: Mismatched = "raise",
        progress: Progress | None = None,
        max_bytes_in_flight: int = IN_FLIGHT,
        on_match: Callable[[MatchReport], None] | None = None,
        restores: Mapping[str, Restore] | None = None,
    ) -> None:
        """`restores`: what makes the values of tags, if not the registry and the framework."""
        self.view, self.path = view, view.path
        self.fetcher = view.stored.fetcher.for_load(max_bytes_in_flight)
        self.blocks = self.fetcher.blocks
        if like is not None and (into is not None or mmap):
            other = "into=" if into is not None else "mmap=True"
            raise fault("bad-option", f"{other} and like= exclude each other", path=view.path)
        self.into, self.like = into, like
        self.mmap, self.maps_into = mmap and into is None, mmap and into is not None
        self.adapter = adapter_named(framework) if isinstance(framework, str) else framework
        verify = view.stored.verification(verify)
        self.verify = (view.stored.verifies and not self.mmap) if verify is None else verify
        self.verifies_maps = bool(verify)
        self.strict, self.cast, self.tally = strict, cast, Tally()
        self.skips = skips(mismatched, view.path)
        self.supply = view.supply(Reads(self.fetcher, self.verify, self.tally))
        self.restores = restores
        self.times: dict[Path, str] = {}  # the places of times that came as numbers, and the framework that lacks them
        self.views: Views | None = None  # of tensors of which a private mapping serves as well as a copy
        self.progress, self.max_bytes_in_flight, self.on_match = progress, max_bytes_in_flight, on_match
        self.select = select if select is None or isinstance(select, str) else list(select)
        self.keep = None if self.select is None else selector(self.select)
        self.selects = self.keep or everything

    def load(self) -> Tree:
        tree = self._loaded()
        self.tally.warn()
        warn_of_times(self.times)
        return tree

    def _loaded(self) -> Tree:
        if self.into is not None:
            return self._fill_target()
        if self.like is not None:
            return self._build_like()
        return self._tree()

    def match(self) -> MatchReport:
        """How the target differs from the checkpoint."""
        return self._fit().report

    @property
    def _stored(self) -> Mapping[Path, Any]:
        """The leaves that are asked for; raises `no-match` where there are none."""
        if self.keep is None:
            return self.supply.leaves
        found = {path: leaf for path, leaf in self.supply.leaves.items() if self.keep(path)}
        if not found:
            raise self._no_match()
        return found

    # ---- a new tree

    def _tree(self) -> Tree:
        self._note_times()
        tree = self.supply.tree(self.keep, self._tensors, self._restores())
        if tree is OMITTED:
            raise self._no_match()
        return tree

    def _tensors(self, wanted: Iterable[int]) -> dict[int, Any]:
        """The tensors of these numbers, as arrays or as the framework has them."""
        with self._reporting(map(self.supply.nbytes, wanted)):
            return self._arrays(wanted) if self.adapter is None else self._wrapped(self.adapter, wanted)

    @property
    def _lacks_times(self) -> bool:
        return self.adapter is not None and self.adapter.framework != "numpy"

    def _note_times(self) -> None:
        if self._lacks_times and self.adapter is not None:
            paths = (path for path in self.supply.times if self.keep is None or self.keep(path))
            self.times |= dict.fromkeys(paths, self.adapter.framework)

    def _restores(self) -> Mapping[str, Restore]:
        """What makes the values of tags for the framework; what views of int64 stand for, frameworks lack."""
        if self.restores is not None:
            return self.restores
        times = dict.fromkeys(TIMES, child_of) if self._lacks_times else {}
        return {**registry.RESTORES, **times, **self.adapter.restores} if self.adapter else registry.RESTORES

    def _no_match(self) -> CkptError:
        return no_match(self.select, self.supply.leaves, self.view.renaming, self.path)

    def _arrays(self, wanted: Iterable[int]) -> dict[int, Array]:
        return self.supply.arrays(wanted, self._read)

    def _read(self, wanted: Iterable[int]) -> dict[int, Array]:
        """Stored tensors, mapped where that costs no read, or is asked for, and read where not."""
        arrays: dict[int, Array] = {}
        if self.mmap:
            arrays = self.fetcher.mapped(wanted, self.verify)
        elif self.views is not None:
            arrays = {index: self.views.arrays[index] for index in wanted if index in self.views.arrays}
        others = [index for index in wanted if index not in arrays]
        return arrays | self.fetcher.tensors(others, self.verify, {})

    def _wrapped(self, adapter: Adapter, wanted: Iterable[int]) -> dict[int, Any]:
        """Tensors of a framework: all at once where they keep the arrays' memory, else a few at a time."""
        found: dict[int, Any] = {}
        lacking = [index for index in wanted if not adapter.supports(self.supply.dtype(index).name)]
        if lacking and not self.cast:
            names = ", ".join(f"{self.supply.label(index)} ({self.supply.dtype(index).name})" for index in lacking[:8])
            raise fault(
                "framework-dtype",
                f"{adapter.framework} has no tensors of the dtype of {names}",
                path=self.path,
                tensor=self.supply.label(lacking[0]),
                found=self.supply.dtype(lacking[0]).name,
                expected=f"a dtype of {adapter.framework}, or cast=True",
            )
        self.fetcher.admit(() if self.mmap else self.supply.sources(wanted))
        dtypes = {index: stand_in(self.supply.dtype(index), adapter.supports) for index in lacking}
        groups: Iterable[list[int]] = [list(wanted)]
        if not adapter.on_host:
            groups = grouped(wanted, self.supply.nbytes, beside_buffers(self.fetcher, self.max_bytes_in_flight))
        for group in groups:
            arrays = self._arrays(group)
            for index in group:
                array = arrays.pop(index)
                found[index] = adapter.wrap(self._as(dtypes[index], array, index) if index in dtypes else array)
        return found

    def _as(self, dtype: np.dtype[Any], array: Array, index: int) -> Array:
        """A tensor with another dtype; integers keep their values."""
        converted, beyond = cast(array, dtype)
        if array.dtype.kind in "iu" and not (converted == array).all():
            text = self.supply.label(index)
            raise fault(
                "framework-dtype",
                f"elements of {text!r} do not fit into {dtype}",
                path=self.path,
                tensor=text,
                found=f"{array.dtype} from {array.min()} to {array.max()}",
                expected=f"elements of {dtype}",
            )
        self.tally.add(TensorCast(self.supply.label(index), name_of(array.dtype), dtype, array.size), None, beyond)
        return converted

    # ---- into a target

    def _fill_target(self) -> Tree:
        with uncollected():
            slots, objects, opened, stored, report, names = self._fit()
            parts = [part for one in objects for part in one.intake.parts]
            adopted = self._adopted(slots, objects, stored) if self.maps_into else None
            self._check(report, names, final=not parts)
            self._check(shared(slots, stored, self.blocks, self.verify))
            known = self.view.stored
            warn_of_order(((one.at, one.intake) for one in objects), stored, self.supply.origin, lambda: known.leaves)
            own = slots if adopted is None else adopted.others
            asked = [(stored[path], found) for path, found in own.items() if found is not None and path in stored]
            places = [TargetPlace(tensor, part, found.dtype) for tensor, found in asked for part in found.parts]
        with self._reporting(chain((place.nbytes for place in places), map(self._part_nbytes, parts))):
            kept = {id(part): self._state(one, [part]) for one in objects for part in one.intake.parts if part.kept}
            if adopted is not None:
                adopted.map(self.blocks, self.verifies_maps)
            try:
                self._fill(places)
            finally:
                for _, found in asked:
                    found.changed()
            if adopted is not None:
                adopted.hand_over()
            for one in objects:
                one.intake.filled()
            for number, one in enumerate(objects):
                try:
                    report += self._handed(one, kept)
                except CkptError as error:
                    self._add_what_is_loaded(error, objects, number, asked)
                    raise
            self._check(report, names)
            report = reduce(add, (one.intake.after() for one in objects), report)
        if self.on_match is not None:
            self.on_match(report)

        def leaf_at(path: Path, leaf: Any) -> Any:
            if isinstance(slots.get(path), Slot) or is_stateful(leaf):
                return leaf
            return self._plain_at(path, opened[path]) if path in opened else stored.get(path, leaf)

        return rebuild(self.into, leaf_at, is_leaf=is_stateful, whole=opened)

    def _fit(self) -> _Fit:
        """Compare the target with the checkpoint."""
        leaves, all_stored = dict(flatten(self.into, is_stateful)), self._stored
        values = {path: leaves.pop(path) for path, leaf in list(leaves.items()) if is_stateful(leaf)}
        stored, there = dict(all_stored), filled(all_stored)
        objects: list[_Object] = []
        tags = self.supply.params(values)
        for (at, value), inside in zip(values.items(), below(stored, values), strict=True):
            found, adapter = receiver(value, self.adapter)
            try:
                intake = found.intake(StoredState(at, inside, tags[at], self.selects), self.strict, self.cast)
            except CkptError as error:
                error.path = self.path
                raise
            objects.append(_Object(at, intake, adapter))
            leaves |= intake.direct
            for path in (path for part in intake.parts for path in part.paths):
                del stored[path]
        left = [path for path, leaf in leaves.items() if not self.selects(path) and not is_blank(leaf)]
        leaves = {path: leaf for path, leaf in leaves.items() if self.selects(path)}
        slots = {path: slot(leaf) for path, leaf in leaves.items()}
        held = [path for path, found in slots.items() if found is not None]
        opened = taken_whole(self.into, [*held, *values, *left], stored, self.supply.leaves)
        leave_out(opened, leaves, slots, stored)
        report, skipped = matched(leaves, slots, stored, self.cast, self.skips, [one.intake for one in objects])
        names = NameCounts(len(slots) + sum(one.intake.names for one in objects), there - len(skipped))
        report = reduce(add, (one.intake.report for one in objects), report)
        given = {at: leaf for at, leaf in all_stored.items() if at not in skipped} if skipped else all_stored
        return _Fit(slots, objects, opened, given, report, names)

    def _adopted(self, slots: dict[Path, Slot | None], objects: list[_Object], stored: Mapping[Path, Any]) -> Adopted:
        intakes = [one.intake for one in objects]
        return Adopted(slots, intakes, stored, self.supply.origin, self.path)

    def _add_what_is_loaded(self, error: CkptError, objects: list[_Object], number: int, asked: list[Any]) -> None:
        """Say what the target has got before an object, by its number, refused what it was given."""
        inside = [one.at for n, one in enumerate(objects) if one.intake.direct or (n < number and one.intake.parts)]
        done = [path_label(at) or "the root" for at in inside]
        if done or asked:
            error.message += f"; loaded before: {', '.join(done[:8]) or 'what is no object'}"

    def _handed(self, one: _Object, kept: Mapping[int, Tree]) -> MatchReport:
        """Hand an object what it takes through its own code, and give what it says of that."""
        report = MatchReport()
        for part, state in self._states(one, kept):
            try:
                said = part.take(state)
            except CkptError as error:
                error.path = self.path
                raise
            self._check(said)
            report += said
        return report

    def _states(self, one: _Object, kept: Mapping[int, Tree]) -> Iterator[tuple[StatePart, Tree]]:
        """What is handed for each part: what was read before, or as many parts at a time as memory has room for."""
        yield from ((part, kept[id(part)]) for part in one.intake.parts if id(part) in kept)
        parts = [part for part in one.intake.parts if id(part) not in kept]
        copied = {id(part): self._copied(part, one.adapter) for part in parts}
        views = Views(self.blocks, chain.from_iterable(copied.values()), self.verify)

        def nbytes_read(part: StatePart) -> int:
            return self._part_nbytes(part) - sum(self.supply.nbytes(i) for i in copied[id(part)] if i in views.arrays)

        room = beside_buffers(self.fetcher, self.max_bytes_in_flight)
        for group in grouped(parts, nbytes_read, room):
            state = self._state(one, group, views)
            for few in grouped(group, self._part_nbytes, STREAM):
                views.bring_in(chain.from_iterable(copied[id(part)] for part in few))
                yield from ((part, state) for part in few)
            del state  # so that its memory is free again, if nobody has kept it

    def _state(self, one: _Object, parts: Iterable[StatePart], views: Views | None = None) -> Tree:
        """A part of an object's state as the tree that was saved, in memory that nobody else looks at."""
        paths = frozenset().union(*(part.paths for part in parts))
        return value_at(self._tree_of(paths, one.adapter, views), one.at) if paths else {}

    def _tree_of(self, paths: frozenset[Path], adapter: Adapter | None, views: Views | None = None) -> Tree:
        """The tree that was saved, but for all other leaves."""
        loader = copy.copy(self)
        loader.keep, loader.adapter, loader.progress = paths.__contains__, adapter, None
        loader.views = views
        return loader._tree()

    def _plain_at(self, at: Path, paths: frozenset[Path]) -> Tree:
        """What stands at a place without tensors, but for all leaves besides these."""
        return self.supply.plain_at(at, None if self.keep is None else paths, self._restores())

    def _copied(self, part: StatePart, adapter: Adapter | None) -> list[int]:
        """The tensors that a module copies from host memory as they are stored, and that are worth a mapping."""
        if self.blocks.storage.is_remote or not (adapter is None or adapter.on_host):
            return []
        leaves = map(self.supply.leaves.__getitem__, part.copied)
        tensors = {leaf.index for leaf in leaves if isinstance(leaf, Tensor) and leaf.nbytes > SMALL}
        return [i for i in tensors if adapter is None or adapter.supports(self.supply.dtype(i).name)]

    def _part_nbytes(self, part: StatePart) -> int:
        leaves = map(self.supply.leaves.__getitem__, part.paths)
        return sum(leaf.nbytes for leaf in leaves if isinstance(leaf, ArrayLike))

    def _fill(self, places: Iterable[TargetPlace]) -> None:
        direct = (place._replace(tensor=self.supply.direct(place.tensor)) for place in places)
        fill(self.fetcher, direct, self.verify, self.max_bytes_in_flight, self.tally)

    def _check(self, report: MatchReport, names: NameCounts | None = None, *, final: bool = True) -> None:
        """[READ-006]. Some of the names must match, once the report is `final`."""
        matched = names is None or names.match(report)
        allowed = MatchReport() if self.strict else MatchReport(report.missing, report.unexpected)
        if report != allowed or (final and not matched):
            said = str(report) if self.strict or matched else f"nothing of the target is in the checkpoint: {report}"
            help_ = advice(report, strict=self.strict, matched=matched)
            raise fault("mismatch", said, path=self.path, report=report, advice=help_)

    # ---- like a template

    def _build_like(self) -> Tree:
        all_leaves, found_there = dict(flatten(self.like)), self._stored
        leaves = {path: leaf for path, leaf in all_leaves.items() if self.selects(path)}
        templates = self._templates(leaves)
        given = as_asked(found_there, all_leaves)
        asked_for = {given(path): found for path, found in found_there.items()}
        stored = {path: self._number(found, leaves.get(path)) for path, found in asked_for.items()}
        held = [path for path in all_leaves if path not in templates or templates[path] is not None]
        whole = taken_whole(self.like, held, stored, {given(path): leaf for path, leaf in self.supply.leaves.items()})
        lists = {at: paths for at, paths in whole.items() if at not in leaves}  # a template's None is no place
        leave_out(lists, leaves, templates, stored)
        report, _ = matched(leaves, templates, stored, self.cast, self.skips)
        self._check(report, NameCounts(len(leaves), filled(stored)))
        asked = {
            (found.identity, ask): found  # aliases that are asked for alike are one object [TREE-010]
            for path, ask in templates.items()
            if ask is not None and isinstance(found := stored.get(path), ArrayLike)
        }
        with self._reporting(tensor.nbytes for tensor in asked.values()):
            built = self._built(asked)

        def leaf_at(path: Path, leaf: Any) -> Any:
            if path in lists:
                return self._plain_at(*as_stored(path, lists[path], found_there, given))
            if path not in templates:  # not selected
                return leaf
            ask, found = templates[path], stored.get(path, leaf)
            if is_empty(leaf) and path in stored:
                if found is not None and not is_empty(found):
                    difference = (path_label(path), type(found).__name__, f"an empty {type(leaf).__name__}")
                    self._check(MatchReport(kind=(difference,)))
                return leaf
            if ask is None or path not in stored:
                return found
            return built[found.identity, ask] if is_tensor(found) else self._of_number(path, ask, found)

        tree = rebuild(self.like, leaf_at, check=self._params_check(given), whole=lists)
        if self.on_match is not None:
            self.on_match(report)
        return tree

    def _params_check(self, given: Callable[[Path], Path]) -> Callable[[Path, Tagged], None]:
        """Whether the params of a template's tags are those that are stored, as far as they bind."""
        bound = {(given(path), tag): param for (path, tag), param in self.supply.bound().items()}

        def check(path: Path, asked: Tagged) -> None:
            param = bound.get((path, asked.tag), asked.param)
            if param != asked.param:
                difference = (path_label(path), f"{asked.tag} {param}", f"{asked.tag} {asked.param}")
                self._check(MatchReport(kind=(difference,)))

        return check

    def _built(self, asked: dict[tuple[Hashable, Template], ArrayLike]) -> dict[tuple[Hashable, Template], Any]:
        """What templates ask for, of the tensors that they ask of."""
        built: dict[tuple[Hashable, Template], Any] = {}
        room = beside_buffers(self.fetcher, self.max_bytes_in_flight)
        for group in grouped(asked.items(), lambda item: item[1].nbytes, room):
            built |= self._built_at_once(dict(group))
        return built

    def _built_at_once(self, asked: dict[tuple[Hashable, Template], ArrayLike]) -> dict[tuple[Hashable, Template], Any]:
        blanks = {key: key[1].blank(key[1].shape, key[1].dtype) for key in asked}
        self._fill(
            TargetPlace(tensor, part, key[1].dtype) for key, tensor in asked.items() for part in blanks[key].parts
        )
        return {key: blank.finish() for key, blank in blanks.items()}

    def _templates(self, leaves: dict[Path, Any]) -> dict[Path, Template | None]:
        """What each leaf asks for; a leaf that stands at several paths asks once."""
        asks: dict[int, Template | None] = {}
        for path, leaf in leaves.items():
            if id(leaf) not in asks:
                try:
                    asks[id(leaf)] = template(leaf)
                except CkptError as error:
                    error.path, error.tensor = self.path, path_label(path)
                    raise
        return {path: asks[id(leaf)] for path, leaf in leaves.items()}

    def _number(self, found: Any, leaf: Any) -> Any:
        """A stored tensor without axes as a Python number, where the template has one of that type."""
        if type(leaf) not in (bool, int, float, complex) or not is_tensor(found) or found.shape:
            return found
        number = found.verified(self.verify).read().item()
        return number if type(number) is type(leaf) else found

    def _of_number(self, path: Path, ask: Template, number: Any) -> Any:
        """A number, where a tensor without axes is asked for."""
        array, blank = np.asarray(number), ask.blank((), ask.dtype)
        kind = TensorCast(path_label(path), name_of(array.dtype), ask.dtype, 1)
        for part in blank.parts:
            self.tally.add(kind, None, put(part, ask.dtype, array))
        return blank.finish()

    # ---- progress

    @contextmanager
    def _reporting(self, sizes: Iterable[int]) -> Iterator[None]:
        """Tell `progress` of bytes as they are read, of tensors of these sizes."""
        if self.progress is None:
            yield
            return
        total = sum(sizes)
        self.fetcher.tell(counter(self.progress, total))
        try:
            yield
            self.progress(total, total)
        finally:
            self.fetcher.tell(None)
