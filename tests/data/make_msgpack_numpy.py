"""Makes the files of tests/data/msgpack_numpy: a model of thinc 9.1.1, as `to_bytes` gives it, and arrays and numbers
as msgpack-numpy 0.4.8 writes them.

python tests/data/make_msgpack_numpy.py
"""

from pathlib import Path

import msgpack_numpy
import numpy as np
from thinc.api import Linear, Relu, chain

FOLDER = Path(__file__).parent / "msgpack_numpy"
KINDS = ("bool", "int8", ">i2", "int64", "uint32", "float16", "float64", ">c8", "complex128")

if __name__ == "__main__":
    model = chain(Relu(4, 3), Linear(2, 4))
    model.initialize(np.ones((1, 3), np.float32), np.ones((1, 2), np.float32))
    (FOLDER / "thinc.msgpack").write_bytes(model.to_bytes())
    np.savez(
        FOLDER / "thinc.npz", *(node.get_param(name) for node in model.walk() for name in sorted(node.param_names))
    )

    tree = {name: np.arange(6).astype(name).reshape(2, 3) for name in KINDS}
    tree |= {"scalar": np.float32(1.5), "complex": 1.5 - 2j, "no axes": np.array(3), "empty": np.zeros((0, 3))}
    (FOLDER / "kinds.msgpack").write_bytes(msgpack_numpy.packb(tree))
