"""A part of a source: `select`, and `root`, which becomes the whole."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Self

from ..errors import CkptError, fault
from ..format.names import Path, PathIndex, path_label, path_text, value_at
from ..format.tree import OMITTED, Tree
from ..frameworks.target import flatten, prune, rebuild
from ..patterns import Patterns, matches, selector
from .source import Loss, OpenedSource, Ours, is_tensor

BETWEEN = "."  # in a flat name
# metadata that are dicts whose keys are path texts
_BY_PATH = (
    *("torch.attributes", "hdf5.attributes", "zarr.attributes", "zarr.dimension_names"),
    *("gguf.quantised", "onnx.sparse", "tflite.quantised", "coreml.quantised"),
)


def reduce(source: OpenedSource, select: Patterns, root: str | None, path: str, *, has_lists: bool) -> None:
    """Leave of an open source, which lies at `path`, what the globs `select` match, and of that what lies below `root`,
    whose path is taken off: a path text, of which the last part may be what flat names begin with, up to a period.

    What is left out on purpose is no loss; the schema, which is of the whole, goes too. In lists and tuples `OMITTED`
    keeps its place, or, where the target `has_lists`, None. Raises `no-match`, `no-such-path` and `ambiguous-path`.
    """
    patterns = [select] if isinstance(select, str) else ["**"] if select is None else list(select)
    place = _Subtree((), "") if root is None else _Subtree.of(source.tree, root, path)
    tree, mapped = source.tree, source.mapped

    keep = selector(patterns)
    source.tree = place.part(tree, keep)
    if source.tree is OMITTED:
        below = "" if root is None else f" below {root!r}"
        raise fault("no-match", f"no path{below} matches {', '.join(map(repr, patterns))}", path=path)
    losses: tuple[Loss, ...] = ()
    if has_lists:
        source.tree, losses = _filled(source.tree)
    if mapped is not None:
        source.mapped = partial(_mapped, mapped, place, keep, has_lists)
    kept = {found[:end] for found, _ in flatten(source.tree, is_tensor) for end in range(len(found) + 1)}
    if source.ours is not None:
        tags = {place.below(at): found for at, found in source.ours.tags.items() if place.below(at) in kept}
        tags_here = {at: found for at, found in tags.items() if at is not None}
        source.ours = Ours(None, tags_here, source.ours.further)
    labels = {path_label(at) for at in kept} if source.losses else set()
    source.losses = (*(loss for loss in source.losses if _concerns(loss, patterns, place, labels)), *losses)
    if isinstance(source.metadata, dict):
        texts = {path_text(at) for at in kept}
        items = source.metadata.items()
        metadata = {key: place.keys(value, texts) if key in _BY_PATH else value for key, value in items}
        source.metadata = {key: value for key, value in metadata.items() if value or key not in _BY_PATH} or None


def _mapped(mapped: Callable[[], Tree], place: _Subtree, keep: Callable[[Path], bool], has_lists: bool) -> Tree:
    part = place.part(mapped(), keep)
    return _filled(part)[0] if has_lists else part


def _filled(tree: Tree) -> tuple[Tree, tuple[Loss, ...]]:
    """A tree with None for what was left out of lists and tuples, so that the rest keeps its place."""
    losses: list[Loss] = []

    def leaf(at: Path, value: Any) -> Any:
        if value is not OMITTED:
            return value
        losses.append(Loss("nesting", path_label(at), "an item that is not selected becomes None"))
        return None

    return rebuild(tree, leaf), tuple(losses)


class _Subtree(NamedTuple):
    """Where a part of a tree stands: at a path, in names there that begin with `prefix`."""

    path: Path
    prefix: str

    @classmethod
    def of(cls, tree: Tree, root: str, path: str) -> Self:
        index = PathIndex(found for found, _ in flatten(tree, is_tensor))
        try:
            return cls(index.find(root, path), "")
        except CkptError as error:
            above, _, last = root.rpartition("/")
            prefix = last.removesuffix(BETWEEN) + BETWEEN
            if error.code != "no-such-path":
                raise
            with contextlib.suppress(CkptError):
                at = index.find(above, path)
                found = value_at(tree, at)
                if isinstance(found, dict) and any(_begins(name, prefix) for name in found):
                    return cls(at, prefix)
            raise

    def part(self, tree: Tree, keep: Callable[[Path], bool]) -> Tree:
        """What of a tree stands here and is kept, or `OMITTED`."""
        found = value_at(tree, self.path)
        if not self.prefix:
            return prune(found, keep, self.path)
        found = type(found)((name, item) for name, item in found.items() if _begins(name, self.prefix))
        found = prune(found, keep, self.path)
        if found is OMITTED:
            return OMITTED
        return type(found)((name[len(self.prefix) :], item) for name, item in found.items())

    def below(self, at: Path) -> Path | None:
        """The path here of what stands at a path of the whole; None if it stands elsewhere."""
        rest = at[len(self.path) :]
        if at[: len(self.path)] != self.path:
            return None
        if not self.prefix:
            return rest
        return (str(rest[0])[len(self.prefix) :], *rest[1:]) if rest and _begins(rest[0], self.prefix) else None

    def keys(self, by_path: Any, texts: set[str]) -> Any:
        """A dict by path text of the whole as one by path text here, of those `texts` that are still there."""
        if not isinstance(by_path, dict):
            return by_path
        root = self._text(path_text)
        found = {key: _below(key, root) for key in by_path if isinstance(key, str)}
        return {text: by_path[key] for key, text in found.items() if text in texts}

    def label(self) -> str:
        return self._text(path_label)

    def _text(self, text_of: Callable[[Path], str]) -> str:
        return "/".join(filter(None, (text_of(self.path), self.prefix)))


def _begins(name: Any, prefix: str) -> bool:
    return isinstance(name, str) and name.startswith(prefix) and name != prefix


def _below(text: str, root: str) -> str | None:
    """A path text or label below a root, without it."""
    if not root or root == text:
        return text.removeprefix(root)
    if root.endswith(BETWEEN):
        return text.removeprefix(root) if text.startswith(root) else None
    return text.removeprefix(f"{root}/") if text.startswith(f"{root}/") else None


def _concerns(loss: Loss, patterns: list[str], place: _Subtree, kept: set[str]) -> bool:
    """Whether something is lost of what is kept: of the whole source, of a container that is still there, or of what
    would have been kept."""
    if not loss.path:
        return loss.kind in ("missing", "metadata") or not (place.path or place.prefix)
    below = _below(loss.path, place.label())
    if below is None:
        return False
    return below in kept or any(matches(pattern, loss.path) for pattern in patterns)
