"""The graph of versions of a schema, in which migrations are the edges: finding the one chain that leads somewhere."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from ..calls import takes
from ..errors import fault
from .document import Migration, read_documents
from .operators import Extern, LossClass

MigrationChain = tuple[Migration, ...]
MigrationLike = Migration | Mapping[str, Any] | str | os.PathLike[str]


class MigrationSet:
    """Migrations of any number of schemas.

    `migrations`: documents (as Python dicts), `Migration` objects, paths of JSON or msgpack files, or an iterable of
    these. `externs`: the functions that documents may name. Raises `bad-migration` and `unknown-extern`.
    """

    @takes()
    def __init__(self, migrations: Documents = (), *, externs: Mapping[str, Extern] | None = None) -> None:
        self.externs: Mapping[str, Extern] = externs or {}
        self.migrations: MigrationChain = tuple(_parsed(migrations, self.externs))

    @takes()
    def chain(self, schema: str, start: str, end: str, *, down: bool = False, lossy: bool = False) -> MigrationChain:
        """Return the migrations of `schema` that lead from version `start` to `end`, in order. [MIG-012]

        `down` goes against the edges: through exact migrations, and with `lossy` through lossy ones too. Raises
        `no-migration`, `ambiguous-migration` and `irreversible-migration`.
        """
        edges = [edge for edge in self.migrations if edge.schema == schema]
        if down:
            forward = self._only(schema, edges, end, start, "Migrations lead there: leave out down=True")
            _check_reversible(forward, lossy)
            return tuple(edge.inverse() for edge in reversed(forward))
        return self._only(schema, edges, start, end, "Migrations lead from there to here: down=True goes back")

    def _only(self, schema: str, edges: list[Migration], start: str, end: str, turned: str) -> MigrationChain:
        """The one chain; `turned` is the advice where there is one the other way round alone."""
        found = _chains(edges, start, end, _reaching(edges, end))
        if len(found) == 1:
            return found[0]
        way = f"of schema {schema!r} from {start!r} to {end!r}"
        if not found:
            advice = turned if _chains(edges, end, start, _reaching(edges, start)) else None
            raise fault("no-migration", f"there is no chain {way}. {self._shown(schema)}", advice=advice)
        chains = " and ".join(" → ".join([start, *(edge.end for edge in chain)]) for chain in found)
        raise fault("ambiguous-migration", f"there is more than one chain {way}: {chains}. {self._shown(schema)}")

    def _shown(self, schema: str) -> str:
        """The graph in words, for messages."""
        lines = [f"{edge} ({edge.loss})" for edge in self.migrations if edge.schema == schema]
        others = sorted({edge.schema for edge in self.migrations} - {schema})
        lines += [f"other schemas: {', '.join(others)}"] if others else []
        return f"The graph: {'; '.join(lines) or 'no migrations'}"


Documents = MigrationSet | MigrationLike | Iterable[MigrationLike]  # as `migrations=` takes them


def _check_reversible(chain: MigrationChain, lossy: bool) -> None:
    worst = max((edge.loss for edge in chain), default=LossClass.EXACT)
    if worst == LossClass.IRREVERSIBLE or (worst == LossClass.LOSSY and not lossy):
        edges = "; ".join(f"{edge} is {edge.loss}" for edge in chain if edge.loss != LossClass.EXACT)
        raise fault("irreversible-migration", f"the chain cannot be run backwards: {edges}")  # [MIG-014]


def _chains(edges: list[Migration], start: str, end: str, useful: set[str]) -> list[MigrationChain]:
    """Up to two chains without repeated versions; `useful` versions are those from which `end` can be reached."""
    found: list[MigrationChain] = []
    open_chains: list[tuple[str, MigrationChain]] = [(start, ())]
    while open_chains and len(found) < 2:
        version, chain = open_chains.pop()
        if version == end:
            found.append(chain)
            continue
        visited = {start, *(edge.end for edge in chain)}
        steps = [e for e in edges if e.start == version and e.end in useful and e.end not in visited]
        open_chains += [(edge.end, (*chain, edge)) for edge in reversed(steps)]
    return found


def _reaching(edges: list[Migration], end: str) -> set[str]:
    found, fresh = {end}, {end}
    while fresh:
        fresh = {edge.start for edge in edges if edge.end in fresh} - found
        found |= fresh
    return found


def _parsed(migrations: Any, externs: Mapping[str, Extern]) -> Iterable[Migration]:
    if isinstance(migrations, Migration):
        yield migrations
    elif isinstance(migrations, str | os.PathLike):
        for document in read_documents(migrations):
            yield Migration.parse(document, externs)
    elif isinstance(migrations, Mapping):
        yield Migration.parse(migrations, externs)
    else:
        for item in migrations:
            yield from _parsed(item, externs)
