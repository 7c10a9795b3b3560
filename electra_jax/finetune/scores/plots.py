"""Pictures of a command's results: the confusion of classes, and every seed's curve on dev."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax.finetune import record
from electra_jax.finetune.kinds import table as kinds
from electra_jax.finetune.plan import Plan, TaskData
from electra_jax.finetune.scores import majority

MOST_CLASSES = 40  # beyond that a matrix cannot be read
LONGEST_NAME = 24  # characters of a class's name at an axis


def draw(work: Plan, folder: Path, result: Mapping[str, Any]) -> bool:
    """Writes seeds.png and, of classification, confusion-TASK.png; False where matplotlib is absent."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    floor = majority.main_score(work, result[majority.NAME])
    draw_seeds(result["runs"], floor, ", ".join(result["tasks"]), folder / "seeds.png")
    best = max(result["runs"], key=lambda run: run["score"])["name"]
    for data in work.data:
        if kinds.get(data.task.kind).draws_confusion and len(data.labels) <= MOST_CLASSES:
            where = record.run_folder(folder, best) / "predictions"
            where = where / data.task.name if len(work.data) > 1 else where
            draw_confusion(
                confusion(data, where / "dev.npz"),
                [data.task.names.get(label, label) for label in data.labels],
                f"{data.task.name}, dev, {best}",
                folder / f"confusion-{data.task.name}.png",
            )
    return True


def draw_seeds(runs: Sequence[Mapping[str, Any]], floor: float, title: str, path: Path) -> None:
    """Draws every run's dev score by epoch, and the runs' scores by learning rate over `floor`."""
    picture = _figure(9, 4)
    curves, points = picture.subplots(1, 2, width_ratios=(3, 1))
    for run in runs:
        at = [e["step"] for e in run["epochs"]]
        curves.plot(at, [e["score"] for e in run["epochs"]], marker="o", label=run["name"])
    for axes in (curves, points):
        axes.axhline(floor, color="gray", linestyle="--", label="majority")
    curves.set(xlabel="step", ylabel="dev score", title=title)
    curves.xaxis.get_major_locator().set_params(integer=True)
    if len(runs) <= 12:
        curves.legend(fontsize="small")
    rates = sorted({run["peak_lr"] for run in runs})
    for i, rate in enumerate(rates):
        scores = [run["score"] for run in runs if run["peak_lr"] == rate]
        points.plot([i] * len(scores), scores, "o", alpha=0.6)
        points.plot([i - 0.2, i + 0.2], [np.median(scores)] * 2, color="black")
    points.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    points.set(xlabel="learning rate", title="every run, median", xlim=(-0.7, len(rates) - 0.3))
    picture.savefig(path, dpi=120)


def draw_confusion(counts: np.ndarray, names: Sequence[str], title: str, path: Path) -> None:
    """Draws int [true, predicted] `counts`: in every cell the share of its true class, and the count.

    The colour is the share, from 0 to 1 whatever the values are. Where no installed font can write
    the names, the axes have the classes' numbers, from 0.
    """
    font = _font("".join(names))
    if font is None:
        names = [str(number) for number in range(len(names))]
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    short = [n if len(n) <= LONGEST_NAME else n[: LONGEST_NAME - 1] + "…" for n in names]
    margin = 1.2 + 0.07 * max(map(len, short))
    size = margin + max(2.4, 0.55 * len(names))
    picture = _figure(size + 0.8, size)
    axes = picture.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (i, j), count in np.ndenumerate(counts):
        axes.text(
            j,
            i,
            f"{100 * shares[i, j]:.0f}%\n{count:,}" if count else "0",
            ha="center",
            va="center",
            fontsize=10 if len(names) <= 6 else 7,
            color="white" if shares[i, j] > 0.5 else "black",
        )
    tilt: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(names)), short, font=font, **tilt)
    axes.set_yticks(range(len(names)), short, font=font)
    where = "" if font else "\n(classes in finetune.json's order)"
    axes.set(xlabel=f"predicted{where}", ylabel="true")
    axes.set_title(title, loc="left", fontsize="medium")
    bar = picture.colorbar(image, shrink=0.8)
    bar.set_label("share of the true class")
    picture.savefig(path, dpi=120)


def _font(text: str) -> Any:
    """The default font if it has every character, else another that is installed; None for none."""
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    default = font_manager.findfont("DejaVu Sans")
    # The font of last resort "has" every character: as a box.
    others = (f.fname for f in font_manager.fontManager.ttflist if "LastResort" not in f.fname)
    for path in (default, *others):
        try:
            known = FT2Font(path).get_charmap()
        except (OSError, RuntimeError):
            continue
        if all(ord(char) in known for char in text):
            return font_manager.FontProperties(fname=path)
    return None


def _figure(width: float, height: float) -> Any:
    """An empty picture of so many inches, without a window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made


def confusion(data: TaskData, path: Path) -> np.ndarray:
    """int [classes, classes]: dev examples by true and predicted class."""
    with np.load(path) as held:
        predicted = held["logits"].argmax(axis=-1)
    true = data.splits["dev"].rows.labels["label"]
    counts = np.zeros((len(data.labels),) * 2, np.int64)
    np.add.at(counts, (true, predicted), 1)
    return counts
