"""A tensor that has not been read, and the parts of it that are."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from ..calls import takes
from ..errors import CkptError, fault
from ..format.grid import Axis
from ..format.grid import select as normalise
from ..format.memory import aligned
from ..format.names import path_label
from ..format.tree import Lazy
from .fetch import Wanted

if TYPE_CHECKING:
    from ..format.arrays import ArraySpec
    from ..format.dtypes import Array
    from ..format.grid import Selection, Shape
    from ..format.names import Path
    from ..frameworks.sources import Region
    from .fetch import Fetcher


class ArrayLike(Lazy):
    """Base of tensors that have not been read, and are indexed and converted as arrays are."""

    __slots__ = ()
    path: Path

    @property
    def shape(self) -> Shape:
        """Its axes, in elements."""
        raise NotImplementedError

    @property
    def dtype(self) -> np.dtype[Any]:
        raise NotImplementedError

    @property
    def nbytes(self) -> int:
        raise NotImplementedError

    @property
    def identity(self) -> Hashable:
        """Equal for what is one tensor, seen in the same way. [TREE-010]"""
        raise NotImplementedError

    def __getitem__(self, index: Any) -> Any:
        raise NotImplementedError

    def read(self, out: Any = None, *, region: Region | None = None) -> Any:
        """The whole tensor as an array of its own, or just a region of it; or filled into `out`."""
        raise NotImplementedError

    def astype(self, dtype: np.dtype[Any]) -> Self:
        """The same tensor, whose elements are converted after they are read."""
        raise NotImplementedError

    def view(self, dtype: np.dtype[Any]) -> ArrayLike:
        """The same elements as another dtype of the same width."""
        raise NotImplementedError

    def verified(self, verify: bool) -> Self:
        """The same tensor, read with or without verification."""
        raise NotImplementedError

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a 0-d tensor")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("a stored tensor cannot become an array without a copy")
        array: Array = self.read()
        if dtype is None or array.dtype == dtype:
            return array
        from ..frameworks.overflows import cast_aloud  # here, as most reads cast nothing

        return cast_aloud(path_label(self.path), array, np.dtype(dtype))


def finished(values: Array, selection: Selection, index: Any) -> Any:
    """What NumPy gives for a basic index, from the values at the axes of its `selection`."""
    result = values[selection.finish]
    if result.ndim == 0 and not any(item is Ellipsis for item in (index if isinstance(index, tuple) else (index,))):
        return result[()]  # NumPy gives a scalar where ints alone index
    return result if result.flags.c_contiguous else result.copy()


class Tensor(ArrayLike):
    """A tensor that has not been read. Index it to read a part, `read()` it whole, or give it to `np.asarray`.

    Basic indexing as in NumPy (ints, slices with any step, Ellipsis) reads only the blocks that hold the wanted
    elements. Public are `path`, `name`, `shape`, `ndim`, `size`, `dtype`, `stored_dtype`, `dtype_name`, `nbytes`,
    `stored_bytes`, `chunks`, `codec`, `read`, `plot`, `astype` and `view`, indexing, iterating and `len`; all else is
    for the package itself.

    Raises `bad-index`, and `CorruptError` (`block-digest`, `bad-chunk`, `missing-object`, `short-object`)
    for damage in what is read; `linked-object` where a link stands in its place; `missing-base` of a patch whose base
    was not given.
    """

    __slots__ = ("_cast", "_fetcher", "_path", "_verify", "_view", "index")

    def __init__(
        self,
        fetcher: Fetcher,
        index: int,
        path: Path | None,
        verify: bool,
        view: np.dtype[Any] | None = None,
        cast: np.dtype[Any] | None = None,
    ) -> None:
        """`fetcher` is that of the checkpoint, which holds its tensors: they must not hold it. Without a `path` it is
        the first at which the tensor is stored."""
        self._fetcher, self._verify = fetcher, verify
        self.index: int = index
        self._path = path
        self._view, self._cast = view, cast

    @property
    def path(self) -> Path:  # type: ignore[override]
        """Where it stands in the tree, as typed keys; of aliases, the first."""
        return self._fetcher.blocks.path_of(self.index) if self._path is None else self._path

    @property
    def name(self) -> str:
        """The path of the Zarr node under `tensors/`."""
        return self._fetcher.manifest.names[self.index]

    @property
    def shape(self) -> Shape:
        """Its axes, in elements."""
        return self.spec.shape

    @property
    def identity(self) -> Hashable:
        """Equal for what is one tensor, seen in the same way. [TREE-010]"""
        return id(self._fetcher), self.index, self._view, self._cast

    @property
    def spec(self) -> ArraySpec:
        """How it is stored as a Zarr array."""
        return self._fetcher.manifest.specs[self.index]

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=object))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of arrays read from it, in native byte order."""
        return self._cast or self._view or self.stored_dtype

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        """The in-memory dtype of the stored elements; `dtype` differs from it for a view (datetime64 of int64) and
        after `astype`."""
        return self.spec.dtype.numpy

    @property
    def dtype_name(self) -> str:
        """The logical dtype of SPEC.md section 3, such as "bfloat16"."""
        return self.spec.dtype.name

    @property
    def nbytes(self) -> int:
        """Bytes before compression, as stored."""
        return self.spec.nbytes

    @property
    def stored_bytes(self) -> int:
        """Bytes on storage."""
        return self._fetcher.blocks.stored_bytes(self.index)

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return self.spec.chunks

    @property
    def codec(self) -> str:
        """ "raw" or the name of the compressor."""
        return self.spec.codec.name

    def __repr__(self) -> str:
        dtype = self._cast or self._view or self.dtype_name  # needs no ml_dtypes
        return f"<Tensor {path_label(self.path)!r} {dtype} {self.shape}>"

    def _repr_html_(self) -> str:
        from ..markup import facts, heading  # here, as notebooks alone ask for it

        stored = f"{self.stored_bytes:,} bytes, {self.codec}, {self.chunks:,} chunk{'s' * (self.chunks != 1)}"
        pairs = [("dtype", self.dtype_name), ("shape", str(list(self.shape))), ("elements", self.size)]
        return heading("Tensor", path_label(self.path)) + facts([*pairs, ("bytes", self.nbytes), ("stored", stored)])

    @takes()
    def plot(self, kind: Literal["histogram", "heat map"] = "histogram", *, axes: Any = None, bins: int = 100) -> Any:
        """Draw the elements with Matplotlib. `kind`: a "histogram" of the finite ones, with so many `bins`, or a "heat
        map" of a matrix; of complex numbers the absolute values. Of a large tensor every n-th element along its axes is
        drawn, as the title says. Returns the `axes`, those that are given or new ones. Raises `missing-package`,
        `bad-option`, and what reading raises."""
        from .plotting import plot

        return plot(self, kind, axes, bins)

    def __getitem__(self, index: Any) -> Any:
        try:
            selection = normalise(index, self.shape)
        except CkptError as error:
            error.path, error.tensor = self._fetcher.blocks.storage.path, path_label(self.path)
            raise
        values = self._fetcher.select(self.index, selection.axes, self._verify)
        return finished(self.seen(values), selection, index)

    @takes()
    def read(self, out: Any = None, *, region: Region | None = None) -> Any:
        """Read the whole tensor: returns an array of its own, or `out`, which is filled: a writable array, or a tensor
        of a framework on any device, of the same shape and dtype; raises `mismatch`. With `region`, one slice with
        start and stop for each axis, just that part is read, and `out` has its shape."""
        if out is not None and not isinstance(out, np.ndarray):
            from .filling import read_into

            return read_into(self, out, region, self._fetcher.blocks.storage.path)
        if region is None and out is None:
            return self.seen(self._fetcher.tensors([self.index], self._verify, {})[self.index])
        sides = region or tuple(slice(0, n) for n in self.shape)
        axes = tuple(Axis(side.start, side.stop - side.start, 1) for side in sides)
        shape = tuple(axis.length for axis in axes)
        if out is None:
            out = aligned(shape, self.dtype)
        inside = all(0 <= a.start <= a.start + a.length <= n for a, n in zip(axes, self.shape, strict=True))
        fits = out.shape == shape and out.dtype.newbyteorder("=") == self.dtype and out.flags.writeable
        if not (fits and inside):
            raise fault(
                "mismatch",
                f"cannot read {path_label(self.path)!r} into the array",
                path=self._fetcher.blocks.storage.path,
                tensor=path_label(self.path),
                found=f"{out.dtype} {out.shape}" + ("" if out.flags.writeable else ", read-only"),
                expected=f"a writable array of {self.dtype} {shape} inside {self.shape}",
            )
        if self.is_direct(out):
            self._fetcher.fill([Wanted(self.index, axes, out.view(self.stored_dtype))], self._verify)
        else:
            out[...] = self.seen(self._fetcher.select(self.index, axes, self._verify))
        return out

    def is_direct(self, out: Array) -> bool:
        """Tell whether stored elements can be read straight into an array."""
        return self._cast is None and out.flags.c_contiguous and out.dtype.isnative

    def seen(self, values: Array) -> Array:
        """Return stored elements as the dtype that was asked for."""
        if self._view is not None:
            values = values.view(self._view)
        if self._cast is None:
            return values
        from ..frameworks.overflows import cast_aloud

        return cast_aloud(path_label(self.path), values, self._cast)

    def view(self, dtype: np.dtype[Any]) -> Tensor:
        """Return the same tensor, whose stored elements are read as another `dtype` of the same width."""
        return Tensor(self._fetcher, self.index, self._path, self._verify, dtype)

    def astype(self, dtype: np.dtype[Any]) -> Self:
        """Return the same tensor, whose elements are converted to `dtype` after they are read."""
        return type(self)(self._fetcher, self.index, self._path, self._verify, self._view, dtype)

    def verified(self, verify: bool) -> Self:
        """Return the same tensor, read with or without verification."""
        return type(self)(self._fetcher, self.index, self._path, verify, self._view, self._cast)

    def within(self, fetcher: Fetcher) -> Self:
        """Return the same tensor, read as part of a load."""
        return type(self)(fetcher, self.index, self._path, self._verify, self._view, self._cast)


def is_tensor(leaf: Any) -> bool:
    """Whether a leaf of a checkpoint's tree is a tensor."""
    return isinstance(leaf, ArrayLike)
