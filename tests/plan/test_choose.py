"""Which machine to rent: the fastest for the money, the cheapest in time, else how far one gets; and its picture."""

import pytest

from electra_jax.plan import choose, picture
from electra_jax.plan.choose import Limits


def whole(topology, hours, on_demand, spot=None, fits=True, phases=1):
    """A made-up run on one topology."""
    money = {"currency": "USD", "on_demand": on_demand, "spot": spot, "date": "2026-11-28"}
    return {
        "topology": topology,
        "config": "base",
        "steps": 1000,
        "fits": fits,
        "hours": hours if fits else None,
        "money": None if on_demand is None else money,
        "phases": [{"also": ""}] * phases,
    }


SLOW, FAST = whole("v5e:2x4", 40.0, 100.0, 30.0), whole("v6e:2x4", 10.0, 300.0, 60.0)
ALL = [SLOW, FAST, whole("v5p:2x2x1", 8.0, None), whole("v5e:2x2", 1.0, 1.0, fits=False)]


@pytest.mark.parametrize(
    "limits, name, share",
    [
        (Limits(budget=500), "v6e:2x4", 1),
        (Limits(budget=150), "v5e:2x4", 1),
        (Limits(budget=70, spot=True), "v6e:2x4", 1),
        (Limits(budget=50), "v5e:2x4", 0.5),
        (Limits(deadline=50), "v5e:2x4", 1),
        (Limits(deadline=20), "v6e:2x4", 1),
        (Limits(deadline=9), "v5p:2x2x1", 1),
        (Limits(deadline=4), "v5p:2x2x1", 0.5),
        (Limits(budget=500, deadline=20), "v6e:2x4", 1),
        (Limits(budget=500, deadline=50), "v5e:2x4", 1),
        (Limits(budget=150, deadline=20), "v5e:2x4", 0.5),
    ],
)
def test_the_choice(limits, name, share):
    """Catches the cheapest for the fastest, a machine without memory or price, and shares of the wrong limit."""
    found, part = choose.choose(ALL, limits)
    assert found["topology"] == name and part == pytest.approx(share)


def test_the_command_is_printed():
    """Catches a choice without the command that starts it, and steps that are not those that fit."""
    said = choose.text(ALL, Limits(budget=50), "base", ["train.batch=128", "data.path=my data"])
    assert "nowhere all 1,000 steps; most of them, 500, on v5e:2x4, in 20.0 h, 50.00 USD" in said
    assert said.endswith(
        "electra-jax pretrain --config base --workdir RUN --config.train.batch=128 "
        "'--config.data.path=my data' --config.train.steps=500"
    )
    assert "train.steps" not in choose.text(ALL, Limits(budget=500), "base", [])
    assert choose.text(ALL[3:], Limits(deadline=1), "base", []).startswith("nothing within 1.0 h")
    assert choose.text(ALL[2:], Limits(budget=9), "base", []).startswith("nothing for 9 ")


def test_a_picture(tmp_path):
    """Catches a picture that is not written, and one of nothing."""
    path = tmp_path / "compare.png"
    assert picture.draw(ALL, path, budget=150, deadline=20)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert not picture.draw(ALL[2:], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
