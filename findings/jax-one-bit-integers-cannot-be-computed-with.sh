#!/usr/bin/env bash
# JAX 0.10.2 on the CPU: the dtypes jnp.int1 and jnp.uint1 are there, and device_put makes arrays of them that come back as
# they were; but nothing else can be done with such an array: to copy, slice or convert it, or to make one by jnp.asarray,
# raises JaxRuntimeError or ValueError. Of int2, uint2, int4 and uint4 all of that works.
#
# Output seen:
#   int1: device_put [0, -1, -1, 0]; raise: asarray, copy, slice, astype
#   uint1: device_put [0, 1, 1, 0]; raise: asarray, copy, slice, astype
#   int2: device_put [0, 1, 1, 0]; raise: none
#   uint2: device_put [0, 1, 1, 0]; raise: none
#   int4: device_put [0, 1, 1, 0]; raise: none
#   uint4: device_put [0, 1, 1, 0]; raise: none
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 ml_dtypes==0.6.0 2>/dev/null
cd "$folder"
JAX_PLATFORMS=cpu venv/bin/python - 2>/dev/null <<'PYTHON'
import jax
import jax.numpy as jnp
import numpy as np

BROKEN = ["asarray", "copy", "slice", "astype"]
SEEN = {name: BROKEN if name.endswith("1") else [] for name in ("int1", "uint1", "int2", "uint2", "int4", "uint4")}
for name, expected in SEEN.items():
    values = np.array([0, 1, 1, 0]).astype(jnp.dtype(name))
    put = jax.device_put(values)
    calls = {
        "asarray": lambda: jnp.asarray(values),
        "copy": lambda: jnp.array(put),
        "slice": lambda: put[:2],
        "astype": lambda: put.astype(jnp.int32),
    }
    raising = []
    for call, make in calls.items():
        try:
            np.asarray(make())
        except (jax.errors.JaxRuntimeError, ValueError):
            raising.append(call)
    shown = np.asarray(put).astype(int).tolist()
    print(f"{name}: device_put {shown}; raise: {', '.join(raising) or 'none'}")
    assert raising == expected
    assert np.array_equal(np.asarray(put), values)
PYTHON
