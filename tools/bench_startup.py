#!/usr/bin/env python3
"""Measures how long one waits for a command: its help, its first message, its first step, cold and warm.

    python tools/bench_startup.py --data data/

Every start is a process of its own. `pretrain` trains two steps of the recipe with a compilation cache that is
empty the first time and then kept; the table has the first start and the median of the later ones, in seconds
since the process began.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMAND = (sys.executable, "-m", "electra_jax")
MOMENTS = ("first message", "first step", "end")


def main() -> None:
    """Prints the table of docs/performance.md."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="prepared folder")
    parser.add_argument("--config", default="tiny")
    parser.add_argument("--starts", type=int, default=5, help="with a warm cache (default: 5)")
    args = parser.parse_args()
    helps = [seconds_of_help() for _ in range(1 + args.starts)]
    with tempfile.TemporaryDirectory() as home:
        starts = [
            pretrain(Path(home) / f"run{i}", Path(home) / "xla", args.config, args.data)
            for i in range(1 + args.starts)
        ]
    print("| | first start | later ones |\n| --- | --- | --- |")
    print(line("--help", helps))
    for i, moment in enumerate(MOMENTS):
        print(line(f"pretrain --config {args.config}: {moment}", [s[i] for s in starts]))


def line(name: str, seconds: list[float]) -> str:
    """A row of the table: the first, and the median of the rest."""
    return f"| {name} | {seconds[0]:.2f} | {statistics.median(seconds[1:]):.2f} |"


def seconds_of_help() -> float:
    """Wall time of `electra-jax --help`."""
    begin = time.perf_counter()
    subprocess.run([*COMMAND, "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def pretrain(run: Path, cache: Path, config: str, data: str) -> tuple[float, ...]:
    """Seconds until each of MOMENTS."""
    settings = (f"data.path={Path(data).resolve()}", "train.steps=2", "train.log_every=1")
    flags = [f"--config.{s}" for s in (*settings, "optim.warmup=1")]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    begin = time.perf_counter()
    process = subprocess.Popen(
        [*COMMAND, "pretrain", "--config", config, "--workdir", str(run), *flags],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    seen: dict[str, float] = {}
    for said in process.stderr or ():
        now = time.perf_counter() - begin
        seen.setdefault("first message", now)
        if said.startswith("step 1/"):
            seen["first step"] = now
    if process.wait():
        sys.exit("error: pretrain failed; run it by hand to see why")
    seen["end"] = time.perf_counter() - begin
    return tuple(seen[moment] for moment in MOMENTS)


if __name__ == "__main__":
    main()
