"""Pictures of a command's results: the confusion of classes, and every seed's curve on dev."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax.finetune import record
from electra_jax.finetune.plan import Plan, TaskData

MOST_CLASSES = 40  # beyond that a matrix cannot be read


def draw(work: Plan, folder: Path, result: Mapping[str, Any]) -> bool:
    """Writes seeds.png and, of classification, confusion-TASK.png; False where matplotlib is absent."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False

    def figure(width: float, height: float) -> Any:
        made = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(made)
        return made

    picture = figure(9, 4)
    curves, points = picture.subplots(1, 2, width_ratios=(3, 1))
    for run in result["runs"]:
        at = [e["step"] for e in run["epochs"]]
        curves.plot(at, [e["score"] for e in run["epochs"]], marker="o", label=run["name"])
    curves.set(xlabel="step", ylabel="dev score", title=", ".join(result["tasks"]))
    if len(result["runs"]) <= 12:
        curves.legend(fontsize="small")
    rates = sorted({run["peak_lr"] for run in result["runs"]})
    for i, rate in enumerate(rates):
        scores = [run["score"] for run in result["runs"] if run["peak_lr"] == rate]
        points.plot([i] * len(scores), scores, "o", alpha=0.6)
        points.plot([i - 0.2, i + 0.2], [np.median(scores)] * 2, color="black")
    points.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    points.set(xlabel="learning rate", title="every run, median", xlim=(-0.7, len(rates) - 0.3))
    picture.savefig(folder / "seeds.png", dpi=120)
    best = max(result["runs"], key=lambda run: run["score"])["name"]
    for data in work.data:
        if data.task.kind == "classify" and len(data.labels) <= MOST_CLASSES:
            where = record.run_folder(folder, best) / "predictions"
            where = where / data.task.name if len(work.data) > 1 else where
            counts = confusion(data, where / "dev.npz")
            picture = figure(1.5 + 0.5 * len(data.labels), 1.5 + 0.5 * len(data.labels))
            axes = picture.subplots()
            axes.imshow(counts, cmap="Blues")
            for (i, j), count in np.ndenumerate(counts):
                dark = count > counts.max() / 2
                axes.text(j, i, count, ha="center", va="center", color="white" if dark else "black")
            axes.set_xticks(range(len(data.labels)), data.labels, rotation=45, ha="right")
            axes.set_yticks(range(len(data.labels)), data.labels)
            axes.set(xlabel="predicted", ylabel="true", title=f"{data.task.name} dev, {best}")
            picture.savefig(folder / f"confusion-{data.task.name}.png", dpi=120)
    return True


def confusion(data: TaskData, path: Path) -> np.ndarray:
    """int [classes, classes]: dev examples by true and predicted class."""
    with np.load(path) as held:
        predicted = held["logits"].argmax(axis=-1)
    true = data.splits["dev"].rows.labels["label"]
    counts = np.zeros((len(data.labels),) * 2, np.int64)
    np.add.at(counts, (true, predicted), 1)
    return counts
