"""A picture of several topologies: how long a run takes on each, and what that costs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from electra_jax.spec import UserError, check_choice

SUFFIXES = (".png", ".pdf", ".svg")


def check(path: str | Path) -> None:
    """Raises UserError, before anything is compiled, where a picture cannot be drawn or written."""
    path = Path(path)
    check_choice(f"--plot {path}: its ending", path.suffix, SUFFIXES)
    if not path.absolute().parent.is_dir():
        raise UserError(f"--plot {path}: there is no folder {path.absolute().parent}")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError("--plot needs matplotlib: pip install 'electra_jax[plot]'") from error


def draw(
    wholes: Sequence[Mapping[str, Any]],
    path: str | Path,
    *,
    budget: float | None = None,
    deadline: float | None = None,
) -> bool:
    """Writes time against money, a point a topology and kind of price; False where nothing has both.

    `wholes` are as `report.whole` makes them; `budget` is in their currency, `deadline` in hours.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    priced = [whole for whole in wholes if whole["fits"] and whole["hours"] and whole["money"]]
    if not priced:
        return False
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for number, whole in enumerate(sorted(priced, key=lambda whole: whole["hours"])):
        color = f"C{number % 10}"
        money, at = whole["money"], whole["hours"]
        axes.plot(at, money["on_demand"], "o", color=color)
        if money["spot"] is not None:
            axes.plot([at, at], [money["spot"], money["on_demand"]], color=color, linewidth=1)
            axes.plot(at, money["spot"], "o", color=color, markerfacecolor="white")
        axes.annotate(
            whole["topology"],
            (at, money["on_demand"]),
            xytext=(6, 3 if number % 2 else -12),  # neighbours do not write over one another
            textcoords="offset points",
            color=color,
        )
    if budget is not None:
        axes.axhline(budget, color="gray", linestyle="--", linewidth=1, label="budget")
    if deadline is not None:
        axes.axvline(deadline, color="gray", linestyle=":", linewidth=1, label="deadline")
    if budget is not None or deadline is not None:
        axes.legend(fontsize="small")
    axes.set(xscale="log", yscale="log")
    axes.margins(0.15)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3, which="both")
    dates = sorted({whole["money"]["date"] for whole in priced})
    axes.set(
        xlabel="hours of the whole run (estimate)",
        ylabel=f"{priced[0]['money']['currency']}: filled on demand, hollow on spot",
        title=f"{priced[0]['config']}, {priced[0]['steps']:,} steps; prices of {' and '.join(dates)}",
    )
    figure.savefig(path, dpi=120)
    return True
