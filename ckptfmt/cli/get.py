"""`ckptfmt get`: one tensor, a slice of one, a plain value or a subtree."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import click
import numpy as np
from rich.text import Text

from .. import CkptError, Tensor
from .. import open as open_checkpoint
from ..format.dtypes import Array
from ..format.names import Path
from ..storage import is_url
from . import index as indices
from . import npy, options
from .console import console, print_json
from .json_form import JsonEncoder
from .lookup import find
from .tags import documents, notes
from .text import dtype, inline, is_container, is_flat, path_label, printable, shape
from .tree_view import VALUE, TreeView

EDGE = 3  # elements shown at each end of an axis, as in NumPy
WHOLE = 1000  # elements up to which an array is printed whole, as in NumPy
CORNERS = 16  # most reads for the ends of all axes
WIDTH = 100  # characters of a line where there is no terminal
_GUARD = "\0"  # cannot stand in an argument of a process


class GetCommand(click.Command):
    """A word such as `-1,::2` is an index and no option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words = [f"{_GUARD}{word}" if word[:1] == "-" and word[1:2].isdigit() else word for word in args]
        try:
            rest = super().parse_args(ctx, words)
        except click.NoSuchOption as error:
            message = error.format_message().rstrip(".")
            raise click.UsageError(f"{message}. Put -- before words that begin with -", ctx) from None
        except click.UsageError as error:
            raise click.UsageError(error.format_message().replace(_GUARD, ""), ctx) from None
        for name, value in ctx.params.items():
            ctx.params[name] = value.removeprefix(_GUARD) if isinstance(value, str) else value
        return rest


@click.command(
    cls=GetCommand,
    epilog="""\b
Examples:
  ckptfmt get model.ckpt model/wte                        # print, abbreviated
  ckptfmt get model.ckpt model/wte 1000:2000,::2          # read only these rows
  ckptfmt get model.ckpt model/wte -1 --json              # the last row, every element
  ckptfmt get model.ckpt model/wte -o wte.npy --as float32
  ckptfmt get model.ckpt optimizer/lr                     # a plain value
  ckptfmt get model.ckpt '["a/b", 0]'                     # the exact keys
  ckptfmt get model.ckpt -- -strange-key-

TENSOR is "" for the root, and a JSON array of keys where the text leaves doubt. Put -- before words that begin with -.

The object of --json has path and key, then for a tensor: dtype, shape, values, output (values is null if output is
a file); for anything else: value, tensors and tags, as `ckptfmt inspect` has them.

Exit codes: 0 fine, 1 the checkpoint is damaged, 2 anything else.
""",
)
@click.argument("path", type=click.Path())
@click.argument("tensor")
@click.argument("index", required=False)
@click.option("--output", "-o", metavar="FILE.npy", type=click.Path(), help="Write the array to a .npy file.")
@options.overwrite("Replace FILE.npy if it exists.")
@click.option(
    "--as",
    "wanted",
    type=click.Choice(npy.AS),
    metavar="DTYPE",
    help="Convert the values to a NumPy dtype of the same or a wider kind; `bits`: unsigned integers with the same"
    " bits, one for each element.",
)
@options.base
@options.follow_links
@options.as_json
def get(
    path: str,
    tensor: str,
    index: str | None,
    output: str | None,
    overwrite: bool,
    wanted: str | None,
    base: tuple[str, ...] | None,
    follow_links: bool,
    as_json: bool,
) -> None:
    """Take TENSOR, a path such as model/wte, out of the checkpoint at PATH.

    INDEX takes a part of it, in NumPy's notation for ints and slices; only the blocks that hold the part are read, and
    they are verified. Plain values and subtrees can be had as well.
    """
    if not is_url(path) and not os.path.exists(path) and os.path.exists(tensor):
        raise click.UsageError(f"there is no {path!r}: the checkpoint comes first, then what to take out of it")
    with open_checkpoint(path, base=base, follow_links=follow_links) as checkpoint, _named(path):
        place, found = find(checkpoint.tree, tensor, path)
        document: dict[str, Any] = {"path": path, "key": tensor}
        if not isinstance(found, Tensor):
            tags = checkpoint.tags
            _refuse_of_tensors(tensor, found, {"INDEX": index, "--output": output, "--as": wanted})
            if as_json:
                encoder = JsonEncoder()
                document |= {"value": encoder.value(found), "tensors": encoder.tensors}
                print_json({**document, "tags": documents(tags, checkpoint.tree, place)})
            else:
                _show_value(place, found, notes(tags, checkpoint.tree))
            return
        item = None if index is None else indices.parse(index)
        if output is not None:
            npy.check_target(output, path, overwrite)
            npy.check_storable(found.dtype, wanted)
        elif not as_json:
            _show_tensor(found, item, wanted)
            return
        values = npy.converted(path_label(found.path), _read(found, item), wanted)
    if output is not None:
        npy.write(output, values, overwrite)
    if as_json:
        document |= {"dtype": values.dtype.name, "shape": values.shape}
        print_json({**document, "values": None if output else JsonEncoder().array(values), "output": output})


def _refuse_of_tensors(name: str, found: Any, given: Mapping[str, str | None]) -> None:
    """Refuse what is said of a tensor where something else stands."""
    for what, value in given.items():
        if value is not None:
            raise click.UsageError(f"{what} is for tensors; {name!r} is of type {type(found).__name__}")


def _show_value(place: Path, value: Any, notes: Mapping[Path, str]) -> None:
    out = console()
    line = inline(value, None if is_flat(value) or not is_container(value) else VALUE)
    is_noted = any(len(path) > len(place) and path[: len(place)] == place for path in notes)
    if line is not None and not is_noted:
        out.print(Text(line))
    else:
        TreeView(out, full=True, notes=notes).show(value, path_label(place), place)


def _show_tensor(tensor: Tensor, item: indices.Index | None, wanted: str | None) -> None:
    """Print a tensor or a part of it as NumPy does, with what it is above where a person looks on."""
    out = console()
    values = _corners(tensor) if item is None and tensor.size > WHOLE else None
    is_cut = values is not None
    if values is None:
        values = _read(tensor, item)
    values = printable(npy.converted(path_label(tensor.path), values, wanted))
    if out.is_terminal:
        part = "" if item is None else f", of which {list(values.shape)}"
        out.print(Text(f"{path_label(tensor.path)}: {dtype(tensor)} {shape(tensor)}{part}", "dim"))
    width = out.width if out.is_terminal else WIDTH
    if values.ndim == 0:
        out.print(Text(str(values[()])))
    else:
        out.print(Text(np.array2string(values, width, threshold=0 if is_cut else WHOLE, edgeitems=EDGE)))


def _read(tensor: Tensor, item: indices.Index | None) -> Array:
    return tensor.read() if item is None else np.asarray(tensor[item])


@contextlib.contextmanager
def _named(path: str) -> Iterator[None]:
    """Errors name the checkpoint; those of an index do not know it."""
    try:
        yield
    except CkptError as error:
        error.path = error.path or path
        raise


def _corners(tensor: Tensor) -> Array | None:
    """The ends of every axis, with one element between them that NumPy will print as `...`; None if that takes too
    many reads. So a tensor of any size is shown by reading a few blocks."""
    most = 2 * EDGE + 1
    ends = [(slice(0, EDGE + 1), slice(-EDGE, None)) if n > most else (slice(None),) for n in tensor.shape]
    if math.prod(map(len, ends)) > CORNERS:
        return None
    values = np.empty([min(n, most) for n in tensor.shape], tensor.dtype)
    for corner in product(*ends):
        values[corner] = tensor[corner]
    return values
