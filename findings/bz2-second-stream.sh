#!/usr/bin/env bash
# Python's bz2: a file of several streams ends silently where the header of a following stream is damaged.
#
# Seen with CPython 3.11.7 (2026-11-28): `bz2.open(...).read()` of two streams, the second one's magic number damaged by
# one bit, returns the first stream's content and raises nothing. The class ignores whatever follows a whole stream if
# it does not begin one (meant for trailing zeros), so half of a corpus written by a parallel compressor can be lost.
# bzip2 1.0.8 returns the same half with exit status 0, but warns: "trailing garbage after EOF ignored".
# This script fails when the behaviour changes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
cd "$home"
python3 - <<'PY'
import bz2
import sys

first, second = b"first half\n" * 1000, b"second half\n" * 1000
whole = bz2.compress(first) + bz2.compress(second)
with open("whole.bz2", "wb") as f:
    f.write(whole)
damaged = bytearray(whole)
damaged[len(bz2.compress(first))] ^= 1  # the B of "BZh9"
with open("damaged.bz2", "wb") as f:
    f.write(damaged)
with bz2.open("whole.bz2") as f:
    assert f.read() == first + second
with bz2.open("damaged.bz2") as f:
    try:
        found = f.read()
    except (OSError, EOFError) as error:
        raise SystemExit(f"changed: {type(error).__name__}: {error}")
if found != first:
    raise SystemExit(f"changed: {len(found)} bytes")
print(f"Python {sys.version.split()[0]}: as seen: {len(found)} of {len(first + second)} bytes, and no error")
PY
