"""The tests that every adapter must pass, to be inherited:

    class TestMyAdapter(AdapterSuite):
        adapter = my_package.ADAPTER

        def tensor(self, array): ...
        def array(self, tensor): ...

pytest collects the class like any other; `tmp_path` is its fixture. Requires the packages pytest and hypothesis.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import ckptfmt

from ..format.casts import cast
from ..format.dtypes import DTYPES, Array, DType
from ..format.grid import Shape
from ..frameworks.adapter import Adapter, Plain, Tagged, Typed, adapter_named
from ..packages import required_by
from .equality import assert_same_tree
from .strategies import filled

with required_by("ckptfmt.testing.adapters"):
    import pytest

SHAPES: tuple[Shape, ...] = ((), (0,), (3, 0, 2), (1,), (7,), (6, 4), (2, 3, 1, 4))


class AdapterSuite:
    """Everything that the core asks of an adapter, through saving and loading."""

    adapter: Adapter
    can_fill = True
    """Whether the framework's tensors can be written to, as `into=` does."""

    # ---- hooks

    def tensor(self, array: Array) -> Any:
        """A tensor of the framework with the array's dtype, shape and bits, and memory of its own."""
        raise NotImplementedError

    def array(self, tensor: Any) -> Array:
        """The elements of a tensor of the framework as an array of its dtype, bit for bit. Raises what it likes for
        anything else."""
        raise NotImplementedError

    def fits(self, dtype: DType, shape: Shape) -> bool:
        """Whether the framework has tensors of a dtype and shape; where it packs elements, some it has not."""
        return True

    def views(self, array: Array) -> list[tuple[Any, Array]]:
        """Tensors that see other memory in an odd way (transposed, strided, expanded …), with their elements."""
        return []

    # ---- what the tests share

    def arrays(self, seed: int = 1) -> dict[str, Array]:
        """An array of random bits for each dtype that the framework has and each shape that it can have."""
        rows = [row for row in DTYPES.values() if self.adapter.supports(row.name)]
        cases = [(row, shape) for row in rows for shape in SHAPES if self.fits(row, shape)]
        return {f"{row.name} {shape}": filled(row.numpy, shape, seed) for row, shape in cases}

    def tensors(self, seed: int = 1) -> dict[str, Any]:
        return {name: self.tensor(array) for name, array in self.arrays(seed).items()}

    def elements(self, tensors: dict[str, Any]) -> dict[str, Array]:
        return {name: self.array(tensor) for name, tensor in tensors.items()}

    # ---- tests

    def test_the_core_finds_it(self) -> None:
        assert adapter_named(self.adapter.framework).framework == self.adapter.framework

    def test_the_classes_that_it_names_are_those_of_tensors(self) -> None:
        """Of values of such a class nobody asks whether they are containers, or tagged."""
        classes = self.adapter.tensors if isinstance(self.adapter, Typed) else frozenset()
        for tensor in self.tensors().values():
            lowered = self.adapter.lower(tensor)
            assert type(tensor) not in classes or not isinstance(lowered, Tagged | Plain | None)

    def test_its_tensors_are_read_as_arrays_bit_for_bit(self, tmp_path: Path) -> None:
        ckptfmt.save(tmp_path / "c", self.tensors())
        assert_same_tree(ckptfmt.load(tmp_path / "c"), self.arrays())

    def test_arrays_are_read_as_its_tensors_bit_for_bit(self, tmp_path: Path) -> None:
        ckptfmt.save(tmp_path / "c", self.arrays())
        found = ckptfmt.load(tmp_path / "c", framework=self.adapter)
        assert_same_tree(self.elements(found), self.arrays())

    def test_its_own_tensors_come_back(self, tmp_path: Path) -> None:
        tensors = self.tensors()
        ckptfmt.save(tmp_path / "c", tensors, compression={"*float32*": "zstd"})
        found = ckptfmt.load(tmp_path / "c", framework=self.adapter, max_bytes_in_flight=64)
        assert_same_tree(self.elements(found), self.arrays())
        assert {name: type(tensor) for name, tensor in found.items()} == {n: type(t) for n, t in tensors.items()}

    def test_views_are_saved_as_what_they_show(self, tmp_path: Path) -> None:
        views = self.views(filled(np.dtype(np.float32), (4, 6), 3))
        ckptfmt.save(tmp_path / "c", [view for view, _ in views])
        assert_same_tree(ckptfmt.load(tmp_path / "c"), [np.ascontiguousarray(shown) for _, shown in views])

    def test_aliases_stay_aliases(self, tmp_path: Path) -> None:
        full, empty = (self.tensor(np.ones(shape, np.float32)) for shape in ((2, 3), (0,)))
        twin = self.tensor(np.ones((2, 3), np.float32))
        ckptfmt.save(tmp_path / "c", {"a": full, "b": [full, empty], "c": (empty, twin)})
        with ckptfmt.open(tmp_path / "c") as checkpoint:
            assert len(checkpoint) == 3
        found = ckptfmt.load(tmp_path / "c", framework=self.adapter)
        assert found["a"] is found["b"][0]
        assert found["b"][1] is found["c"][0]
        assert found["c"][1] is not found["a"]

    def test_containers_and_plain_values_stay_around_tensors(self, tmp_path: Path) -> None:
        tree = {
            "state": {0: self.tensor(np.ones(2, np.float32))},
            "groups": [{"lr": 0.1, "params": (0, 1)}, None, b"x"],
        }
        ckptfmt.save(tmp_path / "c", tree)
        found = ckptfmt.load(tmp_path / "c", framework=self.adapter)
        assert found["groups"] == tree["groups"]
        assert self.array(found["state"][0]).tolist() == [1, 1]
        found = ckptfmt.load(tmp_path / "c", framework=self.adapter, select="groups/0/lr")
        assert found == {"groups": [{"lr": 0.1}, ckptfmt.OMITTED, ckptfmt.OMITTED]}

    @pytest.mark.filterwarnings("ignore::ckptfmt.CastWarning")
    def test_dtypes_that_it_lacks_are_refused_by_name_or_widened(self, tmp_path: Path) -> None:
        lacking = [row for row in DTYPES.values() if not self.adapter.supports(row.name)]
        for row in lacking:
            path, array = tmp_path / row.name, filled(row.numpy, (5,), 1)
            ckptfmt.save(path, {"weights": array})
            with pytest.raises(ckptfmt.MismatchError, match="weights") as caught:
                ckptfmt.load(path, framework=self.adapter)
            assert (caught.value.code, caught.value.found) == ("framework-dtype", row.name)
            wider = self.array(ckptfmt.load(path, framework=self.adapter, cast=True)["weights"])
            assert_same_tree(wider, cast(array, wider.dtype).values)

    def test_tensors_are_filled_in_place(self, tmp_path: Path) -> None:
        if not self.can_fill:
            pytest.skip("tensors of this framework cannot be written to")
        ckptfmt.save(tmp_path / "c", self.arrays(1))
        targets = self.tensors(2)
        found = ckptfmt.load(tmp_path / "c", into=targets)
        assert all(found[name] is target for name, target in targets.items())
        assert_same_tree(self.elements(targets), self.arrays(1))

    def test_targets_that_differ_are_left_alone(self, tmp_path: Path) -> None:
        if not self.can_fill:
            pytest.skip("tensors of this framework cannot be written to")
        ckptfmt.save(
            tmp_path / "c", {"a": np.ones(3, np.float32), "b": np.ones(2, np.float32), "c": np.ones(1, np.int32)}
        )
        zeros = {"a": np.zeros(3, np.float32), "b": np.zeros(3, np.float32), "c": np.zeros(1, np.float32)}
        targets = {name: self.tensor(array) for name, array in zeros.items()}
        with pytest.raises(ckptfmt.MismatchError) as caught:
            ckptfmt.load(tmp_path / "c", into=targets)
        report = caught.value.report
        assert ([row[0] for row in report.shape], [row[0] for row in report.dtype]) == (["b"], ["c"])
        assert_same_tree(self.elements(targets), zeros)

    def test_tensors_are_made_like_others(self, tmp_path: Path) -> None:
        ckptfmt.save(tmp_path / "c", self.arrays(1))
        templates = self.tensors(2)
        found = ckptfmt.load(tmp_path / "c", like=templates)
        assert_same_tree(self.elements(found), self.arrays(1))
        assert_same_tree(self.elements(templates), self.arrays(2))

    def test_what_others_have_is_left_to_them(self) -> None:
        for value in (None, True, 1, 1.5, "text", b"bytes", [1], (1,), {"a": 1}, object(), int):
            assert self.adapter.lower(value) is None
            assert self.adapter.slot(value) is None
            assert self.adapter.template(value) is None
