"""Makes the files of tests/data/paddle with paddlepaddle 3.3.1 (CPU) and NumPy 2.4: python tests/data/make_paddle.py"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import paddle

FOLDER = Path(__file__).parent / "paddle"


class Small(paddle.nn.Layer):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.linear = paddle.nn.Linear(3, 2)
        self.norm = paddle.nn.BatchNorm1D(2)
        for number, parameter in enumerate(self.parameters()):
            parameter.set_value(paddle.arange(parameter.size, dtype="float32").reshape(parameter.shape) + number)


def main() -> None:
    model = Small()
    scheduler = paddle.optimizer.lr.StepDecay(0.5, step_size=3)
    optimizer = paddle.optimizer.Adam(scheduler, parameters=model.parameters())
    model.norm(model.linear(paddle.ones([4, 3]))).sum().backward()
    state: dict[str, Any] = model.state_dict()
    for protocol in (2, 3, 4):
        paddle.save(state, str(FOLDER / f"protocol{protocol}.pdparams"), protocol=protocol)
    kinds = {name: paddle.arange(4).reshape([2, 2]).astype(name) for name in ("bfloat16", "float16", "float64")}
    kinds |= {name: paddle.arange(4).astype(name) for name in ("bool", "uint8", "int8", "int16", "int32", "int64")}
    kinds |= {"complex64": paddle.to_tensor([1 + 2j]), "scalar": paddle.to_tensor(7.5), "empty": paddle.ones([0, 3])}
    paddle.save(kinds, str(FOLDER / "kinds.pdparams"))
    nested = {"model": state, "epoch": 3, "list": [paddle.ones([2]), 1.5, "x"], "tuple": (1, None, True)}
    paddle.save(nested, str(FOLDER / "nested.pdparams"))
    paddle.save(paddle.ones([2, 2]), str(FOLDER / "one.pdtensor"))
    # what `paddle.save(protocol=2)` makes of tensors of 1 GiB and more
    sliced = {"w@@.0": np.arange(4, dtype="f4"), "w@@.1": np.arange(4, 6, dtype="f4"), "b": np.ones(2, "f4")}
    sliced["UnpackBigParamInfor@@"] = {"w": {"OriginShape": (3, 2), "slices": ["w@@.0", "w@@.1"]}}
    (FOLDER / "sliced.pdparams").write_bytes(pickle.dumps(sliced, 2))
    assert paddle.load(str(FOLDER / "sliced.pdparams"))["w"].tolist() == [[0, 1], [2, 3], [4, 5]]
    optimizer.step()
    paddle.save(optimizer.state_dict(), str(FOLDER / "adam.pdopt"))


if __name__ == "__main__":
    main()
