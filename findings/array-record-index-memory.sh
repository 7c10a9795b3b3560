#!/usr/bin/env bash
# array_record: an open reader holds an index of every record of its file, which is not small.
#
# Seen with array_record 0.8.6 (2026-11-29): opening a file of a million records of 8 bytes (group_size:1) and reading
# one of them adds 15 to 25 MiB to the process, so as many bytes a record, for as long as the reader is open. A program that
# keeps the readers of all shards open holds that for every row of its data, in every process. `readahead_buffer_size:0`
# and `max_parallelism:0`, the settings for random access, change nothing about it.
# This script fails when the memory for a record leaves 8 to 64 bytes.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
cd "$home"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check 'array_record==0.8.6' 2>/dev/null
venv/bin/python - <<'PY'
from array_record.python import array_record_module as module

RECORDS = 1_000_000
writer = module.ArrayRecordWriter("rows.array_record", "group_size:1")
for number in range(RECORDS):
    writer.write(number.to_bytes(8, "little"))
writer.close()
PY
venv/bin/python - <<'PY'
from importlib import metadata

from array_record.python import array_record_module as module

RECORDS = 1_000_000


def resident() -> int:
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * 4096


before = resident()
reader = module.ArrayRecordReader(
    "rows.array_record", "readahead_buffer_size:0,max_parallelism:0", file_reader_buffer_size=8192
)
assert reader.read([RECORDS // 2]) == [(RECORDS // 2).to_bytes(8, "little")]
each = (resident() - before) / RECORDS
if not 8 <= each <= 64:
    raise SystemExit(f"changed: {each:.1f} bytes a record")
print(f"array_record {metadata.version('array_record')}: as seen: {each:.1f} bytes a record of an open file")
PY
