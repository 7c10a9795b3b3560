#!/usr/bin/env python3
"""Curves (PNG) and a Markdown table of what held-out evaluation found, from runs' metrics.jsonl.

    python tools/plot_run.py run/ --baselines baselines.json --output curve.png --table table.md
    python tools/plot_run.py run-a/ run-b/ --output compare.png

Needs matplotlib: pip install -e '.[plot]'. --baselines takes the JSON of tools/baselines.py.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from electra_jax import files
from electra_jax.spec import UserError

PANELS = (  # key, title, baselines as (label, path in the JSON)
    (
        "mlm_loss",
        "masked-LM loss, nats",
        (
            ("unigram", ("masked_lm", "unigram", "mlm_loss_copying")),
            ("bigram", ("masked_lm", "bigram", "mlm_loss_copying")),
        ),
    ),
    (
        "mlm_accuracy",
        "masked-LM accuracy",
        (
            ("unigram", ("masked_lm", "unigram", "mlm_accuracy_copying")),
            ("bigram", ("masked_lm", "bigram", "mlm_accuracy_copying")),
        ),
    ),
    (
        "disc_auc",
        "discriminator AUC",
        (
            ("unigram", ("detector", "generator_replacements", "unigram_auc")),
            ("bigram", ("detector", "generator_replacements", "bigram_auc")),
        ),
    ),
    ("disc_recall", "discriminator recall", ()),
    ("disc_precision", "discriminator precision", ()),
    ("replaced_fraction", "fraction of tokens replaced", ()),
)
COLUMNS = (
    "mlm_loss",
    "mlm_accuracy",
    "disc_auc",
    "disc_precision",
    "disc_recall",
    "replaced_fraction",
)
LINE_STYLES = {"unigram": ":", "bigram": "--"}


@dataclass(frozen=True)
class Run:
    """One workdir: its held-out lines in order of steps, and how many tokens a step takes."""

    name: str
    lines: list[dict[str, Any]]
    tokens_a_step: int
    tokens_per_s: float | None  # median of the training lines

    def millions(self, line: dict[str, Any]) -> float:
        """Millions of tokens seen at this line."""
        return line.get("tokens_seen", line["step"] * self.tokens_a_step) / 1e6


def read_run(folder: Path) -> Run:
    """Reads a workdir; a last line that is still being written is left out."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        raise UserError(f"{path} does not exist; give the workdir of a pretraining run")
    lines, texts = [], path.read_text().splitlines()
    for number, text in enumerate(texts, 1):
        try:
            lines.append(json.loads(text))
        except ValueError:
            if number < len(texts):
                raise UserError(f"{path}:{number}: not a JSON object") from None
    held_out = sorted((x for x in lines if x["split"] == "valid"), key=lambda x: x["step"])
    if not held_out:
        raise UserError(f"{path} has no held-out lines yet; wait for the first evaluation")
    record = json.loads((folder / "config.json").read_text())
    speeds = sorted(x["tokens_per_s"] for x in lines if x.get("tokens_per_s"))
    return Run(
        folder.resolve().name,
        held_out,
        record["config"]["train"]["batch"] * record["data"]["seq_len"],
        speeds[len(speeds) // 2] if speeds else None,
    )


def draw(runs: list[Run], baselines: dict[str, Any], output: Path) -> None:
    """One panel per metric against tokens seen; baselines as horizontal lines."""
    try:
        import matplotlib
    except ImportError:
        raise UserError("plots need matplotlib: pip install 'electra_jax[plot]'") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 3, figsize=(12, 6.5), layout="constrained")
    for axis, (key, title, lines) in zip(axes.flat, PANELS, strict=True):
        for run in runs:
            points = [(run.millions(x), x[key]) for x in run.lines if x.get(key) is not None]
            axis.plot([x for x, _ in points], [y for _, y in points], label=run.name)
        for label, path in lines:
            value = lookup(baselines, path)
            if value is not None:
                axis.axhline(value, color="gray", linestyle=LINE_STYLES[label], label=label)
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3)
    for axis in axes[1]:
        axis.set_xlabel("million tokens seen")
    axes[0, 0].legend(fontsize=8)
    with files.disk_errors(output):
        figure.savefig(output, dpi=110)
    pyplot.close(figure)


def table(runs: list[Run], baselines: dict[str, Any], rows: int) -> str:
    """Markdown: up to `rows` evenly spread evaluations a run, the last included, then baselines."""
    head = ("run", "step", "million tokens", *COLUMNS)
    lines = [list(head), ["---"] * len(head)]
    for run in runs:
        last = len(run.lines) - 1
        count = min(rows, last + 1)
        picked = sorted({round(i * last / max(1, count - 1)) for i in range(count)} | {last})
        for line in (run.lines[i] for i in picked):
            cells = [run.name, str(line["step"]), f"{run.millions(line):.2f}"]
            lines.append(cells + [_number(line.get(key)) for key in COLUMNS])
    for label in LINE_STYLES:
        paths = {key: path for key, _, found in PANELS for name, path in found if name == label}
        values = {key: lookup(baselines, path) for key, path in paths.items()}
        if any(value is not None for value in values.values()):
            cells = [f"{label} baseline", "", ""]
            lines.append(cells + [_number(values.get(key)) for key in COLUMNS])
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    speeds = [f"{r.name} {r.tokens_per_s:,.0f}" for r in runs if r.tokens_per_s]
    return text + ("\n\nMedian training speed, tokens/s: " + "; ".join(speeds) if speeds else "")


def lookup(tree: dict[str, Any], path: tuple[str, ...]) -> float | None:
    """The value at a path of nested dicts; None where there is none."""
    found: Any = tree
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def main(argv: list[str] | None = None) -> int:
    """Draws and prints; 2 for a mistake of the user's."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workdir", nargs="+", type=Path, help="workdirs of pretraining runs")
    parser.add_argument("--baselines", type=Path, help="JSON of tools/baselines.py")
    parser.add_argument("--output", type=Path, help="PNG to write")
    parser.add_argument("--table", type=Path, help="Markdown to write (printed in any case)")
    parser.add_argument("--rows", type=int, default=12, help="rows a run (default: 12)")
    given = parser.parse_args(argv)
    try:
        runs = [read_run(folder) for folder in given.workdir]
        baselines = json.loads(given.baselines.read_text()) if given.baselines else {}
        if given.output:
            draw(runs, baselines, given.output)
        text = table(runs, baselines, given.rows)
        if given.table:
            files.write_text(given.table, text + "\n")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
