"""Held-out curves as one line of text each."""

from electra_jax.doctor import history

BARS = (
    "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"  # an eighth of a line high, two eighths, ...
)
WIDEST = 60  # evaluations that are drawn: of more, every second, third, ... one and the last
# The curves of a run: the loss only where the log has neither of the others.
SHOWN = (("mlm_loss", "disc_auc"), ("loss",))


def curves(lines: list[history.Line]) -> list[str]:
    """A line a metric: first value, bars from its least (lowest) to its most, last value; none for one evaluation."""
    for names in SHOWN:
        found = {name: history.series(lines, name) for name in names}
        drawn = {name: values for name, values in found.items() if len(values) > 1}
        if drawn:
            width = max(map(len, drawn))
            return [f"{name:{width}}  {drawing(values)}" for name, values in drawn.items()]
    return []


def drawing(values: list[float]) -> str:
    """`7.01 (bars) 4.17`; bars of equal height where nothing changes."""
    stride = -(-len(values) // WIDEST)
    kept = values[-1::-stride][::-1]
    low, high = min(kept), max(kept)
    unit = (high - low) / (len(BARS) - 1) or 1.0
    bars = "".join(BARS[round((value - low) / unit)] for value in kept)
    return f"{values[0]:.4g} {bars} {values[-1]:.4g}"
