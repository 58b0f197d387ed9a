"""Make `tflite/small.tflite`: python tests/data/make_tflite.py, with tflite 2.18.0 and flatbuffers 25.12.19."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from tflite_models import small  # noqa: E402

if __name__ == "__main__":
    (HERE / "tflite/small.tflite").write_bytes(small())
