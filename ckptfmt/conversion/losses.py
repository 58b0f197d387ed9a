"""Which losses a caller allows, and the refusal of the others."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..errors import CkptError, fault
from ..format.tree import Tree
from .source import KINDS, Loss, is_tensor, walk

SHOWN = 8  # most messages, and most places of each, that an error names

AllowLoss = bool | str | Collection[str]  # all or none, one kind, or several


def allowed_kinds(allow_loss: AllowLoss) -> frozenset[str]:
    """The kinds that `allow_loss` means; raises `bad-option`."""
    if isinstance(allow_loss, bool):
        return frozenset(KINDS if allow_loss else ())
    kinds = frozenset([allow_loss] if isinstance(allow_loss, str) else allow_loss)
    if odd := sorted(map(repr, kinds - set(KINDS))):
        message = f"allow_loss= has {', '.join(odd)}, which is no kind of loss"
        raise fault("bad-option", message, expected=f"True, False, or some of {', '.join(KINDS)}")
    return kinds


class LeftOut:
    """The tensors of a source that cannot be read. They become `losses`, so that the others can be."""

    def __init__(self, losses: list[Loss]) -> None:
        self._losses = losses
        self._first: CkptError | None = None

    def add(self, error: CkptError) -> None:
        """Leave out the tensor of an error; raises it, where it is of more than that."""
        if error.code != "unsupported-source" or not error.tensor:
            raise error
        self._first = self._first or error
        self._losses.append(Loss("value", error.tensor, f"{error.message}: it is left out"))

    def check(self, tree: Tree) -> None:
        """Refuse a source that has no other tensors; raises why the first could not be read."""
        if self._first is not None and not any(is_tensor(leaf) for _, leaf in walk(tree)):
            raise self._first


def refusal(
    reading: Sequence[Loss], writing: Sequence[Loss], allowed: frozenset[str], path: str, target: str
) -> CkptError:
    """The error for losses that are not all allowed: those of reading the source, and those of writing the target."""
    refused = [loss for loss in (*reading, *writing) if loss.kind not in allowed]
    is_target = any(loss.kind not in allowed for loss in writing)
    words = f"{target} cannot hold everything" if is_target else "not everything in it can be kept"
    needed = [kind for kind in KINDS if kind in allowed or any(loss.kind == kind for loss in refused)]
    allow = f"llow it: allow_loss={{{', '.join(map(repr, needed))}}}"
    if is_target:
        advice = f"Choose another target, take a part (root=, select=), or a{allow}"
    else:
        advice = (
            f"Give what is missing, or a{allow}" if any(loss.kind == "missing" for loss in refused) else f"A{allow}"
        )
    return fault("lossy", f"{words}: {_named(refused)}", path=path, report=tuple(refused), advice=advice)


def _named(losses: Sequence[Loss]) -> str:
    """What is lost, each message with its places."""
    places: dict[tuple[str, str], list[str]] = {}
    for loss in losses:
        places.setdefault((loss.kind, loss.message), []).append(repr(loss.path))
    named = [f"{kind} of {', '.join(at[:SHOWN])}{_more(len(at))}: {message}" for (kind, message), at in places.items()]
    return "; ".join(named[:SHOWN]) + (f"; {_more(len(named)).strip()}" if len(named) > SHOWN else "")


def _more(count: int) -> str:
    return f" and {count - SHOWN:,} more" if count > SHOWN else ""
