#!/usr/bin/env bash
# safetensors: `safetensors.numpy.load_file` has no numpy type for 8-bit floats and fails with an AttributeError.
#
# Seen with safetensors 0.6.2 and numpy 2.2.6 (2026-11-28): a valid file with one F8_E4M3 tensor gives
#   AttributeError: module 'numpy' has no attribute 'float8_e4m3fn'
# The error names neither the file nor the tensor, and it is no SafetensorError, so code that expects the library's own
# error does not catch it. `safe_open(...).get_slice(name).get_dtype()` tells the type beforehand.
# This script fails when the behaviour changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/env"
"$home/env/bin/pip" install -q --disable-pip-version-check safetensors==0.6.2 numpy==2.2.6
cd "$home"
"$home/env/bin/python" - <<'PY'
import json
import struct

from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

header = {"weight": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}
text = json.dumps(header).encode()
with open("model.safetensors", "wb") as f:
    f.write(struct.pack("<Q", len(text)) + text + bytes([0x38, 0x40, 0xB8, 0x00]))  # 1, 2, -1, 0

with safe_open("model.safetensors", framework="numpy") as opened:
    print("type told beforehand:", opened.get_slice("weight").get_dtype())
try:
    load_file("model.safetensors")
except SafetensorError as error:
    raise SystemExit(f"changed: now a SafetensorError: {error}")
except AttributeError as error:
    print("as seen: AttributeError:", error)
else:
    raise SystemExit("changed: the file can be read")
PY
