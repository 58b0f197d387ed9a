"""Makes the files of tests/data/mlx with mlx 0.32.4 (mlx[cpu], on Linux too): python tests/data/make_mlx.py"""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx

FOLDER = Path(__file__).parent / "mlx"
KINDS = ("bool_", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "bfloat16")


def main() -> None:
    kinds = {name: mx.arange(4).astype(getattr(mx, name)) for name in (*KINDS, "float32", "complex64")}
    mx.save_safetensors(str(FOLDER / "kinds.safetensors"), kinds)
    mx.savez(str(FOLDER / "kinds.npz"), **kinds)
    weight = (mx.arange(64) % 16).astype(mx.float32).reshape(1, 64) * 0.5 - 1
    packed, scales, biases = mx.quantize(weight, group_size=32, bits=4)
    quantised = {"a.weight": packed, "a.scales": scales, "a.biases": biases}
    mx.save_safetensors(str(FOLDER / "quantised.safetensors"), quantised, metadata={"format": "mlx"})
    pairs = {"general.architecture": "llama", "k": mx.array([1, 2]), "s": mx.array(3)}
    mx.save_gguf(str(FOLDER / "pairs.gguf"), {"w": mx.arange(4).astype(mx.float32), "i": mx.arange(3)}, pairs)


if __name__ == "__main__":
    main()
