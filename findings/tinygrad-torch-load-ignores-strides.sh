#!/usr/bin/env bash
# tinygrad 0.14.0: `torch_load` reads a tensor that was a part of another one as if its elements lay one after another.
# torch saves such a tensor with the strides that it has, which tinygrad only looks at to find out how axes were
# exchanged. Columns, every second row and diagonals come with other elements, without a word.
#
# Output seen:
#   w[:, :2]:     torch [[0.0, 1.0], [4.0, 5.0]], tinygrad [[0.0, 1.0], [2.0, 3.0]]
#   w[0, ::2]:    torch [0.0, 2.0], tinygrad [0.0, 1.0]
#   diagonal:     torch [0.0, 5.0], tinygrad [0.0, 1.0]
#   w[1:]:        torch [[4.0, 5.0, 6.0, 7.0]], tinygrad [[4.0, 5.0, 6.0, 7.0]]
#
# tinygrad asks for a compiler when it starts, clang unless CC says another: here any C compiler will do.
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tinygrad==0.14.0 torch==2.13.0 numpy==2.4.6
cd "$folder"
cat >compile <<'COMPILE'
#!/bin/sh
cc -w -c -x c -O2 -fPIC -ffreestanding -fno-math-errno -nostdlib - -o "$HOME/kernel.o" && cat "$HOME/kernel.o"
COMPILE
chmod +x compile

HOME="$folder" CC="$folder/compile" venv/bin/python - <<'PROGRAM'
import sys

import torch
from tinygrad.nn.state import torch_load

w = torch.arange(8.0).reshape(2, 4)
parts = {"w[:, :2]": w[:, :2], "w[0, ::2]": w[0, ::2], "diagonal": w.diagonal(), "w[1:]": w[1:]}
wrong = []
for number, (name, part) in enumerate(parts.items()):
    torch.save({"w": part}, f"{number}.pt")
    found = torch_load(f"{number}.pt")["w"].numpy().tolist()
    print(f"{name + ':':13} torch {part.tolist()}, tinygrad {found}")
    wrong.append(found != part.tolist())
sys.exit(wrong != [True, True, True, False])
PROGRAM
