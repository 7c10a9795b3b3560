"""All runs of a command side by side: every seed, median, mean and deviation, the ensemble, plots."""

import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax import files
from electra_jax.finetune import forward, record
from electra_jax.finetune.plan import Plan, TaskData
from electra_jax.finetune.record import Record
from electra_jax.finetune.scores import majority, plots, scoring
from electra_jax.tasks import metrics

ENSEMBLE = "ensemble"


def write(work: Plan, folder: Path, found: Record) -> dict[str, Any]:
    """Writes results.json, results.md, the ensemble's predictions and the plots; returns the first.

    `runs` holds every run; `summary` a row a learning rate, task, split and metric with n, median,
    mean, std (of a sample; null for one run), min, max; `majority` what always giving one answer
    reaches; `best_lr` the rate of the best mean dev score, whose runs make the `ensemble`.
    """
    runs = [record.done(folder, run.name) for run in found.runs]
    finished = [run for run in runs if run is not None]
    summary = summarise(finished)
    rates = {run["peak_lr"] for run in finished}
    best = max(
        rates, key=lambda rate: _mean([r["score"] for r in finished if r["peak_lr"] == rate])
    )
    chosen = [run["name"] for run in finished if run["peak_lr"] == best]
    result = {
        "tasks": list(found.tasks),
        "init": found.init,
        "examples": found.examples,
        "steps": found.steps,
        "main_metric": {d.task.name: d.task.main_metric for d in work.data},
        "select": work.options.train.select,
        "runs": finished,
        "summary": summary,
        majority.NAME: found.majority or majority.measure(work),
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


def summarise(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each learning rate, task, split and metric."""
    values: dict[tuple[float, str, str, str], list[float]] = {}
    for run in runs:
        for task, splits in run["scores"].items():
            for split, values_of in splits.items():
                for metric, value in values_of.items():
                    if metrics.is_score(metric, value):
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
    """results.md: every run's main dev score, and the summary, beside what one answer reaches."""
    kept = "after the last epoch" if result["select"] == "last" else "of the best epoch on dev"
    one = result[majority.NAME]
    told = [
        f"{d.task.name}: {majority.describe(d.task, one[d.task.name]['answer'])}" for d in work.data
    ]
    floor = majority.main_score(work, one)

    def beside(task: str, split: str, metric: str) -> str:
        value = one[task]["scores"].get(split, {}).get(metric)
        return "-" if value is None else f"{value:.2f}"

    lines = [
        f"# {', '.join(result['tasks'])}",
        "",
        f"From {result['init'].get('name', 'a random encoder')} ({result['init']['kind']}); "
        f"{result['steps']:,} steps; parameters {kept}.",
        "",
        f"Majority is what always giving one answer reaches ({'; '.join(told)}).",
        "",
        "| run | seed | learning rate | dev score | s |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {r['name']} | {r['seed']} | {r['peak_lr']:g} | {r['score']:.2f} | {r['seconds']:.0f} |"
            for r in result["runs"]
        ),
        f"| majority | - | - | {floor:.2f} | - |",
        *_verdict(result["runs"], floor),
        "",
        "| learning rate | task | split | metric | majority | n | median | mean ± std | min | max |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| {s['peak_lr']:g} | {s['task']} | {s['split']} | {s['metric']} | "
            f"{beside(s['task'], s['split'], s['metric'])} | {s['n']} | "
            f"{s['median']:.2f} | {s['mean']:.2f} ± {_std(s['std'])} | {s['min']:.2f} | {s['max']:.2f} |"
            for s in result["summary"]
        ),
    ]
    if result["ensemble"]:
        lines += [
            "",
            "| ensemble of | split | metric | majority | value |",
            "| --- | --- | --- | --- | --- |",
        ]
        for task, splits in result["ensemble"].items():
            for split, values in (splits or {}).items():
                lines += [
                    f"| {task} | {split} | {name} | {beside(task, split, name)} | {value:.2f} |"
                    for name, value in values.items()
                    if metrics.is_score(name, value)
                ]
    notes = {
        values["differs"]: None
        for run in result["runs"]
        for splits in run["scores"].values()
        for values in splits.values()
        if "differs" in values
    }
    return "\n".join([*lines, *(f"\nNote: {note}" for note in notes)]) + "\n"


def _verdict(runs: Sequence[Mapping[str, Any]], floor: float) -> list[str]:
    """A line where runs are no better than one answer to everything."""
    bad = sum(run["score"] <= floor for run in runs)
    return (
        [
            "",
            f"{bad} of {len(runs)} runs no better on dev than the majority: they learned nothing "
            "that dev can show.",
        ]
        if bad
        else []
    )


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
