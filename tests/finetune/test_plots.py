"""Pictures that can be read."""

import numpy as np
import pytest

from electra_jax.finetune.scores import plots

image = pytest.importorskip("matplotlib.image")


@pytest.mark.parametrize(
    ("counts", "background"),
    [([[4, 4], [5, 5]], (0.2, 0.6)), ([[9, 0], [9, 0]], (0.0, 0.2))],
)
def test_the_upper_left_cell_is_coloured_and_written_on(tmp_path, counts, background):
    """Catches white on white: colours scaled from the least count, whose cell was white."""
    plots.draw_confusion(np.array(counts), ["good", "体育"], "dev", tmp_path / "c.png")
    picture = image.imread(tmp_path / "c.png")[..., :3]
    # The cell: the first row of pixels inside the frame, found by its black line.
    dark = (picture < 0.1).all(axis=-1)
    top = int(np.argmax(dark.sum(axis=1) > 200)) + 4
    left = int(np.argmax(dark.sum(axis=0) > 200)) + 4
    low, high = background
    assert low <= picture[top, left, 0] < high
    cell = picture[top : top + 150, left : left + 150, 0]
    assert abs(cell - picture[top, left, 0]).max() > 0.3
