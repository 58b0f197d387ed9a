#!/usr/bin/env bash
# torch 2.13.0: tensors of the newer dtypes can be saved in the legacy form of torch.save, and not be read again.
#
# torch.save(..., _use_new_zipfile_serialization=False) of a uint16 tensor writes a file without complaint. torch.load
# of it raises AttributeError: type object 'torch.storage.UntypedStorage' has no attribute 'dtype'. So it is with all
# dtypes that have no typed storage: uint16, uint32, uint64, float8_*, float4_e2m1fn_x2. The ZIP form is sound.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==2.13.0" numpy --extra-index-url https://download.pytorch.org/whl/cpu
cd "$folder"
venv/bin/python - <<'PYTHON'
import sys, torch

for dtype in (torch.int16, torch.uint16, torch.uint32, torch.float8_e5m2):
    tensor = torch.ones(2).to(dtype)
    torch.save(tensor, "new.pt")
    assert torch.load("new.pt").dtype == dtype
    torch.save(tensor, "legacy.pt", _use_new_zipfile_serialization=False)
    try:
        found = torch.load("legacy.pt", weights_only=False).dtype
    except AttributeError as error:
        assert "UntypedStorage" in str(error), error
        found = None
    print(dtype, "in the legacy form:", "comes back" if found else "is written, and not read")
    if (found is None) != (dtype != torch.int16):
        sys.exit("torch has changed")
PYTHON
