#!/usr/bin/env bash
# JAX: without 64-bit mode, `jax.random.key` takes a seed modulo 2**32, and says nothing.
#
# Seen with jax 0.10.2 (2026-11-28): the keys of the seeds 0, 2**32 and 5 * 2**32 are the same, so two runs that were
# given different 64-bit seeds draw the same numbers. With jax_enable_x64 they differ, so the same seed also gives
# another stream in that mode. This script fails when the behaviour changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/env"
"$home/env/bin/pip" install -q --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2
cd "$home"
cat > keys.py <<'PY'
import sys
import warnings

import jax

warnings.simplefilter("error")
jax.config.update("jax_enable_x64", sys.argv[1] == "x64")
keys = {seed: tuple(jax.random.key_data(jax.random.key(seed)).tolist()) for seed in (0, 2**32, 5 * 2**32)}
print(sys.argv[1], keys)
sys.exit(len(set(keys.values())))
PY
export JAX_PLATFORMS=cpu
kinds=0; "$home/env/bin/python" keys.py x32 || kinds=$?
[ "$kinds" = 1 ] || { echo "changed: $kinds different keys in 32-bit mode, or a warning"; exit 1; }
kinds=0; "$home/env/bin/python" keys.py x64 || kinds=$?
[ "$kinds" = 3 ] || { echo "changed: $kinds different keys in 64-bit mode"; exit 1; }
echo "as seen: one key for three seeds without 64-bit mode, three with it"
