#!/usr/bin/env bash
# ml_dtypes 0.7.0 (numpy 2.4.6): `import ml_dtypes` takes half a second, a hundred times what 0.6.0 takes, and more than
# numpy itself and all that most programs import beside it. 0.7.0 registers loops of ufuncs, also for all pairs of its
# dtypes and those of NumPy (`RegisterUFuncPromoters` of ml_dtypes/_src/ufuncs.cc): gdb counts 40,519 calls of NumPy's
# PyUFunc_AddLoop in the import, each of which compares its dtypes with those of every loop that the ufunc has already.
# `perf` sees two thirds of the time in these comparisons of tuples (PyObject_RichCompare, tuplerichcompare).
#
# Output seen, the best of five imports in processes of their own, after numpy:
#   ml_dtypes 0.6.0: 4.6 ms
#   ml_dtypes 0.7.0: 560.8 ms, 121 times as long
#
# Exits non-zero if 0.7.0 takes less than twenty times as long.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 0.6.0 0.7.0; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install --quiet "ml_dtypes==$version" numpy==2.4.6
done

python3 - "$folder" <<'PROGRAM'
import subprocess
import sys

CODE = "import numpy, time; begin = time.perf_counter(); import ml_dtypes; print(time.perf_counter() - begin)"


def best(version: str) -> float:
    run = [f"{sys.argv[1]}/{version}/bin/python", "-c", CODE]
    return min(float(subprocess.run(run, capture_output=True, check=True).stdout) for _ in range(5))


before, after = best("0.6.0"), best("0.7.0")
print(f"ml_dtypes 0.6.0: {before * 1e3:.1f} ms")
print(f"ml_dtypes 0.7.0: {after * 1e3:.1f} ms, {after / before:.0f} times as long")
sys.exit(after < 20 * before)
PROGRAM
