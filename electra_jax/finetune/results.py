"""All runs of a command side by side: every seed, median, mean and deviation, the ensemble, plots."""

import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax import files
from electra_jax.finetune import forward, plots, record, scoring
from electra_jax.finetune.plan import Plan, TaskData

ENSEMBLE = "ensemble"


def write(work: Plan, folder: Path, found: Mapping[str, Any]) -> dict[str, Any]:
    """Writes results.json, results.md, the ensemble's predictions and the plots; returns the first.

    `runs` holds every run; `summary` a row a learning rate, task, split and metric with n, median,
    mean, std (of a sample; null for one run), min, max; `best_lr` the rate of the best mean dev
    score, whose runs make the `ensemble`.
    """
    runs = [record.done(folder, run.name) for run in record.runs(found)]
    finished = [run for run in runs if run is not None]
    summary = summarise(finished)
    rates = {run["peak_lr"] for run in finished}
    best = max(
        rates, key=lambda rate: _mean([r["score"] for r in finished if r["peak_lr"] == rate])
    )
    chosen = [run["name"] for run in finished if run["peak_lr"] == best]
    result = {
        "tasks": found["tasks"],
        "init": found["init"],
        "examples": found["examples"],
        "steps": found["steps"],
        "main_metric": {d.task.name: d.task.main_metric for d in work.data},
        "select": work.options.train.select,
        "runs": finished,
        "summary": summary,
        "best_lr": best,
        "ensemble": {d.task.name: _ensemble(d, folder, chosen, len(work.data)) for d in work.data}
        if len(chosen) > 1
        else None,
    }
    files.write_json(folder / record.RESULTS, result)
    files.write_text(folder / record.TABLE, table(work, result))
    drawn = plots.draw(work, folder, result)
    if not drawn:
        print("no plots: pip install 'electra_jax[plot]' draws them", file=sys.stderr)
    return result


def is_score(name: str, value: Any) -> bool:
    """Whether an entry of the scores is one, not a count, a threshold or a table of types."""
    counted = ("total", "missing", "right", "found", "there")
    return isinstance(value, float) and not name.endswith((*counted, "thresh"))


def summarise(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each learning rate, task, split and metric."""
    values: dict[tuple[float, str, str, str], list[float]] = {}
    for run in runs:
        for task, splits in run["scores"].items():
            for split, metrics in splits.items():
                for metric, value in metrics.items():
                    if is_score(metric, value):
                        key = (run["peak_lr"], task, split, metric)
                        values.setdefault(key, []).append(float(value))
    return [
        {
            "peak_lr": rate,
            "task": task,
            "split": split,
            "metric": metric,
            "n": len(found),
            "median": statistics.median(found),
            "mean": _mean(found),
            "std": statistics.stdev(found) if len(found) > 1 else None,
            "min": min(found),
            "max": max(found),
        }
        for (rate, task, split, metric), found in values.items()
    ]


def table(work: Plan, result: Mapping[str, Any]) -> str:
    """results.md: every run's main dev score, and the summary."""
    kept = "after the last epoch" if result["select"] == "last" else "of the best epoch on dev"
    lines = [
        f"# {', '.join(result['tasks'])}",
        "",
        f"From {result['init'].get('name', 'a random encoder')} ({result['init']['kind']}); "
        f"{result['steps']:,} steps; parameters {kept}.",
        "",
        "| run | seed | learning rate | dev score | s |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {r['name']} | {r['seed']} | {r['peak_lr']:g} | {r['score']:.2f} | {r['seconds']:.0f} |"
            for r in result["runs"]
        ),
        "",
        "| learning rate | task | split | metric | n | median | mean ± std | min | max |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| {s['peak_lr']:g} | {s['task']} | {s['split']} | {s['metric']} | {s['n']} | "
            f"{s['median']:.2f} | {s['mean']:.2f} ± {_std(s['std'])} | {s['min']:.2f} | {s['max']:.2f} |"
            for s in result["summary"]
        ),
    ]
    if result["ensemble"]:
        lines += ["", "| ensemble of | split | metric | value |", "| --- | --- | --- | --- |"]
        for task, splits in result["ensemble"].items():
            for split, metrics in (splits or {}).items():
                lines += [
                    f"| {task} | {split} | {name} | {value:.2f} |"
                    for name, value in metrics.items()
                    if is_score(name, value)
                ]
    return "\n".join(lines) + "\n"


def _ensemble(
    data: TaskData, folder: Path, names: Sequence[str], tasks: int
) -> dict[str, dict[str, Any]] | None:
    """The scores of the runs' mean outputs; their predictions go to ensemble/."""
    scores = {}
    for split, content in data.splits.items():
        found = []
        for name in names:
            where = record.run_folder(folder, name) / "predictions"
            with np.load((where / data.task.name if tasks > 1 else where) / f"{split}.npz") as held:
                found.append(dict(held))
        together = forward.mean(found)
        if together is None:
            return None
        where = folder / ENSEMBLE / (data.task.name if tasks > 1 else "")
        scoring.write(data, split, content, together, where)
        if content.labelled:
            scores[split] = scoring.scores(data, content, together)
    return scores


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _std(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
