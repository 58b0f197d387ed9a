"""Casts along every path give the same bits, and tell how many elements the dtype cannot hold. [DTYPE-006]
[DTYPE-009]"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ckptfmt_jax
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from peers import peer

import ckptfmt
from ckptfmt import CastWarning, Overflow
from ckptfmt.cli import main
from ckptfmt.format.casts import cast

ckptfmt_torch = peer("ckptfmt_torch")
ckptfmt_torch_dcp = peer("ckptfmt_torch.dcp")
torch = peer("torch")
dcp = peer("torch.distributed.checkpoint")

# a tie, what is just past it, subnormals, the greatest, the first beyond, infinities, zeros, a NaN
TIE = 1 + 2.0**-4
NUMBERS = [TIE, TIE + 2.0**-40, 1 + 2.0**-8 + 2.0**-40, 2.0**-10, 2.0**-10 + 2.0**-60, 448, 464, 465, -1e300]
X = np.array([*NUMBERS, math.inf, -math.inf, 0.0, -0.0, math.nan, 1e-300])
TYPES: dict[str, Any] = {
    "bfloat16": (ml_dtypes.bfloat16, 1),
    "float16": (np.float16, 1),
    "float8_e4m3fn": (ml_dtypes.float8_e4m3fn, 4),
    "float8_e5m2": (ml_dtypes.float8_e5m2, 1),
    "float8_e5m2fnuz": (ml_dtypes.float8_e5m2fnuz, 3),
    "float8_e4m3fnuz": (ml_dtypes.float8_e4m3fnuz, 6),
    "float8_e8m0fnu": (ml_dtypes.float8_e8m0fnu, 5),
    "float8_e5m3fnu": (ml_dtypes.float8_e5m3fnu, 3),
}
CAST = {"ckptfmt_migration": 1, "schema": "s", "from": "1", "to": "2"}


def document(*operators: dict[str, Any]) -> dict[str, Any]:
    return {**CAST, "rules": [{"from": "x", "with": list(operators), "to": "x"}]}


def codes(array: Any) -> list[int]:
    return np.asarray(array).reshape(-1).view(f"u{array.dtype.itemsize}").tolist()


def torch_codes(tensor: torch.Tensor) -> list[int]:
    width = {1: torch.uint8, 2: torch.uint16}[tensor.element_size()]
    return tensor.contiguous().view(width).reshape(-1).tolist()


def into_array(path: Path, name: str) -> list[int]:
    target = np.empty(X.shape, TYPES[name][0])
    ckptfmt.load(path, into={"x": target}, cast=True)
    return codes(target)


def into_strided_array(path: Path, name: str) -> list[int]:
    target = np.empty((*X.shape, 2), TYPES[name][0])[:, 1]
    ckptfmt.load(path, into={"x": target}, cast=True)
    return codes(target.copy())


def like_array(path: Path, name: str) -> list[int]:
    return codes(ckptfmt.load(path, like={"x": np.empty(X.shape, TYPES[name][0])}, cast=True)["x"])


def as_type(path: Path, name: str) -> list[int]:
    with ckptfmt.open(path) as checkpoint:
        return codes(np.asarray(checkpoint["x"], TYPES[name][0]))


def into_tensor(path: Path, name: str) -> list[int]:
    target = torch.empty(X.shape, dtype=getattr(torch, name))
    ckptfmt_torch.load(path, into={"x": target}, cast=True)
    return torch_codes(target)


def into_strided_tensor(path: Path, name: str) -> list[int]:
    target = torch.empty((*X.shape, 2), dtype=getattr(torch, name))[:, 1]
    ckptfmt_torch.load(path, into={"x": target}, cast=True)
    return torch_codes(target)


def into_dcp(path: Path, name: str) -> list[int]:
    state = {"x": torch.empty(X.shape, dtype=getattr(torch, name))}
    dcp.load(state, storage_reader=ckptfmt_torch_dcp.StorageReader(path, cast=True), no_dist=True)
    return torch_codes(state["x"])


def like_jax(path: Path, name: str) -> list[int]:
    like = {"x": jax.ShapeDtypeStruct(X.shape, TYPES[name][0])}
    return codes(np.asarray(ckptfmt_jax.load(path, like=like, cast=True)["x"]))


def migrated(path: Path, name: str) -> list[int]:
    made = document({"op": "cast", "dtype": name})
    return codes(ckptfmt.load(path, schema="2", migrations=made)["x"])


def migrated_slice(path: Path, name: str) -> list[int]:
    with ckptfmt.open(path, schema="2", migrations=document({"op": "cast", "dtype": name})) as view:
        return codes(view["x"][:])


PATHS: list[Callable[[Path, str], list[int]]] = [
    into_array,
    into_strided_array,
    like_array,
    as_type,
    into_tensor,
    into_strided_tensor,
    into_dcp,
    like_jax,
    migrated,
    migrated_slice,
]


OF_FRAMEWORKS = (into_tensor, into_strided_tensor, into_dcp, like_jax)  # which lack float8_e5m3fnu
CASES = [(name, path) for name in TYPES for path in PATHS if name != "float8_e5m3fnu" or path not in OF_FRAMEWORKS]


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize(("name", "path"), CASES, ids=[f"{name}-{path.__name__}" for name, path in CASES])
def test_every_path_gives_the_same(tmp_path: Path, path: Callable[[Path, str], list[int]], name: str) -> None:
    ckptfmt.save(tmp_path / "c", {"x": X}, schema=("s", "1"))
    with pytest.warns(CastWarning, match="DTYPE-009") as caught:
        found = path(tmp_path / "c", name)
    assert found == codes(cast(X, np.dtype(TYPES[name][0])).values)
    (warning,) = [one.message for one in caught if isinstance(one.message, CastWarning)]
    (overflow,) = warning.overflows
    assert (overflow.path, overflow.found, overflow.dtype) == ("x", "float64", name)
    assert (overflow.elements, overflow.beyond) == (len(X), TYPES[name][1])


def test_frameworks_themselves_differ() -> None:
    """Why there is a rule: 465 is beyond float8_e4m3fn."""
    x = np.array([465.0], np.float32)
    fn = ml_dtypes.float8_e4m3fn
    assert float(torch.from_numpy(x).to(torch.float8_e4m3fn)) == 448
    assert math.isnan(x.astype(fn)[0])
    assert math.isnan(jnp.asarray(x).astype(fn)[0])
    assert math.isnan(cast(x, np.dtype(fn)).values[0])
    zero = np.zeros(1, np.float32)
    assert float(torch.from_numpy(zero).to(torch.float8_e8m0fnu)) == 2.0**-127
    assert math.isnan(cast(zero, np.dtype(ml_dtypes.float8_e8m0fnu)).values[0])


@pytest.mark.parametrize(("stored", "dtype", "right"), [
    (np.array([7, 8, 9, -9]), ml_dtypes.int4, [7, -8, -7, 7]),
    (np.array([127, 128, -129], np.int16), np.int8, [127, -128, 127]),
    (np.array([-1, 0, 3]), np.uint64, [2**64 - 1, 0, 3]),
])  # fmt: skip
def test_integers_that_wrap_are_said(tmp_path: Path, stored: Any, dtype: Any, right: list[int]) -> None:
    ckptfmt.save(tmp_path / "c", {"x": stored})
    target = np.empty(stored.shape, dtype)
    with pytest.warns(CastWarning, match="integers outside .* wrap"):
        ckptfmt.load(tmp_path / "c", into={"x": target}, cast=True)
    assert [int(n) for n in target] == right


def test_what_fits_is_not_said(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "c", {"x": X[:6], "n": np.arange(8)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ckptfmt.load(tmp_path / "c", into={"x": np.empty(6, "f4"), "n": np.empty(8, ml_dtypes.int4)}, cast=True)


def test_one_warning_names_all_tensors(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "c", {f"x{i}": np.full(3, 1e6) for i in range(10)})
    with pytest.warns(CastWarning, match="And 2 more") as caught:
        ckptfmt.load(tmp_path / "c", into={f"x{i}": np.empty(3, np.float16) for i in range(10)}, cast=True)
    assert len(caught) == 1
    message: Any = caught[0].message
    assert [overflow.beyond for overflow in message.overflows] == [3] * 10


def test_a_match_foretells(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "c", {"x": X, "y": np.ones(X.shape, "f4")})
    with ckptfmt.open(tmp_path / "c") as checkpoint:
        report = checkpoint.match({"x": np.empty(X.shape, "f2"), "y": np.empty(X.shape, "f8")}, cast=True)
    assert report.ok
    rule = "what is beyond ±65504 becomes ±inf"
    assert report.overflows == (Overflow("x", "float64", "float16", rule, len(X), None),)
    assert "may be beyond the range" in str(report)
    with ckptfmt.open(tmp_path / "c") as checkpoint:
        report = checkpoint.match({"x": np.empty(X.shape, "f2")}, cast=True)
    assert str(report) == "unexpected in the checkpoint: y"


def test_numbers_of_templates(tmp_path: Path) -> None:
    """A Python number as a tensor without axes: rounded once, too."""
    ckptfmt.save(tmp_path / "c", {"x": 1 + 2.0**-8 + 2.0**-40, "y": 1e300})
    like = {"x": np.empty((), ml_dtypes.bfloat16), "y": np.empty((), np.float32)}
    with pytest.warns(CastWarning, match="y "):
        found = ckptfmt.load(tmp_path / "c", like=like)
    assert float(found["x"]) == 1 + 2.0**-7
    assert math.isinf(found["y"])


def test_dtypes_that_a_framework_lacks(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "c", {"x": X})
    if jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        pytest.skip("JAX has float64")
    with pytest.warns(CastWarning, match="float64 to float32"):
        found = ckptfmt.load(tmp_path / "c", framework="jax", cast=True)["x"]
    assert np.asarray(found)[8] == -math.inf


# ---- migrations


def save(folder: Path, **tensors: Any) -> Path:
    ckptfmt.save(folder / "src", tensors, schema=("s", "1"))
    return folder / "src"


def test_plan_and_report(tmp_path: Path) -> None:
    source = save(tmp_path, x=X, y=X[:3].astype("f4"))
    made = {**CAST, "rules": [
        {"from": "x", "with": [{"op": "cast", "dtype": "float8_e4m3fn"}], "to": "x"},
        {"from": "y", "with": [{"op": "cast", "dtype": "float64"}], "to": "y"},
    ]}  # fmt: skip
    rule = "what is beyond ±448 becomes NaN"
    foretold = ckptfmt.migrate(source, tmp_path / "dst", made, schema="2", plan_only=True)
    assert foretold.overflows == (Overflow("x", "float64", "float8_e4m3fn", rule, len(X), None),)
    done = ckptfmt.migrate(source, tmp_path / "dst", made, schema="2")
    assert done.overflows == (Overflow("x", "float64", "float8_e4m3fn", rule, len(X), 4),)
    assert codes(ckptfmt.load(tmp_path / "dst")["x"]) == codes(cast(X, np.dtype(ml_dtypes.float8_e4m3fn)).values)


def test_a_report_says_that_all_fitted(tmp_path: Path) -> None:
    source = save(tmp_path, x=np.ones(3))
    done = ckptfmt.migrate(source, tmp_path / "dst", document({"op": "cast", "dtype": "float16"}), schema="2")
    assert [overflow.beyond for overflow in done.overflows] == [0]


FN = ml_dtypes.float8_e4m3fn
ARITHMETIC: list[tuple[dict[str, Any], Any, Any, int | None, int]] = [
    ({"op": "scale", "by": 2.0}, [1, 240, -448], [2, math.nan, math.nan], None, 2),
    ({"op": "scale", "by": 0.5}, [1, 240, -448], [0.5, 120, -224], 0, 0),
    ({"op": "scale", "by": 1 + 2.0**-4 + 2.0**-40}, [1, -1], [1.125, -1.125], None, 0),
    ({"op": "add", "value": 2.0**-4 + 2.0**-40}, [1, 448], [1.125, 448], None, 0),
    ({"op": "add", "value": 17.0}, [1, 448], [18, math.nan], None, 1),
    ({"op": "pad", "axis": 0, "before": 1, "after": 1, "value": 465}, [1], [math.nan, 1, math.nan], 2, 2),
    ({"op": "pad", "axis": 0, "before": 0, "after": 1, "value": 1 + 2.0**-4 + 2.0**-40}, [1], [1, 1.125], 0, 0),
]


@pytest.mark.parametrize(("operator", "given", "right", "foretold", "met"), ARITHMETIC)
def test_operators(tmp_path: Path, operator: Any, given: Any, right: Any, foretold: int | None, met: int) -> None:
    source = save(tmp_path, x=np.array(given).astype(FN))
    with ckptfmt.open(source, schema="2", migrations=document(operator)) as view:
        assert [overflow.beyond for overflow in view.plan.overflows] == ([] if foretold == 0 else [foretold])
    done = ckptfmt.migrate(source, tmp_path / "dst", document(operator), schema="2")
    assert sum(overflow.beyond or 0 for overflow in done.overflows) == met
    np.testing.assert_array_equal(ckptfmt.load(tmp_path / "dst")["x"].astype("f8"), right)


@pytest.mark.parametrize(("dtype", "value", "right", "beyond"), [
    ("float8_e4m3fn", 465, math.nan, 6),
    ("float8_e4m3fn", 464, 448.0, 0),
    ("float8_e5m3fnu", -1e-300, math.nan, 6),
    ("float8_e5m3fnu", -0.0, 0.0, 0),
    ("float8_e8m0fnu", 0, math.nan, 6),
    ("float4_e2m1fn", 100, 6.0, 6),
    ("bfloat16", 1 + 2.0**-8 + 2.0**-40, 1 + 2.0**-7, 0),
    ("bfloat16", 2**60 + 2**52 + 1, 2.0**60 + 2.0**53, 0),
    ("int4", 9, -7, 6),
    ("uint8", -1.0, 255, 6),
    ("bool", 1, 1, 0),
])  # fmt: skip
def test_fill(tmp_path: Path, dtype: str, value: float, right: float, beyond: int) -> None:
    source = save(tmp_path, x=np.ones(1))
    rule = {"from": [], "with": [{"op": "fill", "value": value, "shape": [2, 3], "dtype": dtype}], "to": "new"}
    done = ckptfmt.migrate(source, tmp_path / "dst", {**CAST, "rest": "keep", "rules": [rule]}, schema="2")
    assert sum(overflow.beyond or 0 for overflow in done.overflows) == beyond
    assert done.plan.overflows == done.overflows
    new = ckptfmt.load(tmp_path / "dst")["new"]
    np.testing.assert_array_equal([[float(n) for n in row] for row in new], np.full((2, 3), right))


@pytest.mark.parametrize(("dtype", "value"), [
    ("int8", 0.5), ("int4", math.nan), ("uint8", math.inf), ("bool", 2), ("int64", 1e30),
])  # fmt: skip
def test_values_that_no_cast_defines_are_faults_of_the_plan(tmp_path: Path, dtype: str, value: float) -> None:
    source = save(tmp_path, x=np.ones(1))
    rule = {"from": [], "with": [{"op": "fill", "value": value, "shape": [2], "dtype": dtype}], "to": "new"}
    with pytest.raises(ckptfmt.InputError) as caught:
        ckptfmt.migrate(source, tmp_path / "dst", {**CAST, "rest": "keep", "rules": [rule]}, schema="2")
    assert caught.value.code == "migration-mismatch"


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, 10**400])
def test_numbers_of_more_than_64_bits_are_refused(tmp_path: Path, value: int) -> None:
    source = save(tmp_path, x=np.ones(1))
    with pytest.raises(ckptfmt.InputError) as caught:
        ckptfmt.migrate(source, tmp_path / "dst", document({"op": "add", "value": value}), schema="2")
    assert caught.value.code == "bad-migration"


@pytest.mark.parametrize("name", ["float8_e5m3fnu", "float8_e8m0fnu"])
def test_neg_needs_a_sign(tmp_path: Path, name: str) -> None:
    source = save(tmp_path, x=np.ones(1, getattr(ml_dtypes, name)))
    with pytest.raises(ckptfmt.InputError, match=f"sign, not {name}"):
        ckptfmt.migrate(source, tmp_path / "dst", document({"op": "neg"}), schema="2")


def test_what_is_read_twice_counts_once(tmp_path: Path) -> None:
    """An extern reads its input whole for each output; an alias is one tensor."""
    source = save(tmp_path, x=X)

    def call(array: Any) -> tuple[Any, ...]:
        return array[:7], array[7:]

    def rule(spec: Any) -> tuple[Any, ...]:
        return type(spec)((7,), spec.dtype), type(spec)((len(X) - 7,), spec.dtype)

    cast_first = [{"op": "cast", "dtype": "float16"}, {"op": "extern", "name": "halves"}]
    made = {**CAST, "rules": [{"from": "x", "with": cast_first, "to": ["a", "b"]}]}
    externs = {"halves": ckptfmt.Extern(1, rule, call)}
    done = ckptfmt.migrate(source, tmp_path / "dst", made, schema="2", externs=externs)
    assert [(overflow.path, overflow.beyond) for overflow in done.overflows] == [("a", 1), ("b", 1)]


def test_parts_of_a_view_are_counted_by_themselves(tmp_path: Path) -> None:
    source = save(tmp_path, x=X)
    with ckptfmt.open(source, schema="2", migrations=document({"op": "cast", "dtype": "float16"})) as view:
        assert view["x"][:4].dtype == np.float16
        with pytest.warns(CastWarning, match="1 of 15 elements"):
            view["x"][6:10:2]


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = save(tmp_path, x=X)
    (tmp_path / "m.json").write_text(json.dumps(document({"op": "cast", "dtype": "float8_e4m3fn"})))
    arguments = ["migrate", str(source), str(tmp_path / "dst"), "--to", "2", "--migrations", str(tmp_path / "m.json")]
    rule = "what is beyond ±448 becomes NaN"
    assert main([*arguments, "--plan"]) == 0
    line = f"! x (float64 to float8_e4m3fn): elements may be beyond the range; {rule}"
    assert line in capsys.readouterr().out.replace("\n", " ")
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["overflows"] == [
        {"path": "x", "found": "float64", "dtype": "float8_e4m3fn", "rule": rule, "elements": 15, "beyond": 4}
    ]
    assert main([*arguments, "--overwrite"]) == 0
    line = f"! x (float64 to float8_e4m3fn): 4 of 15 elements are beyond the range; {rule}"
    assert line in capsys.readouterr().out.replace("\n", " ")
    assert main(["get", str(source), "x", "--as", "float16"]) == 0
    assert "1 of 15 elements are beyond the range" in capsys.readouterr().err
