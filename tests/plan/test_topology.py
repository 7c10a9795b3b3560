"""Names of TPU slices in both spellings, and what is refused before anything heavy happens."""

import pytest

from electra_jax.learn import hardware
from electra_jax.plan import topology
from electra_jax.plan.chips import CHIPS
from electra_jax.spec import UserError


@pytest.mark.parametrize(
    ("counted", "shaped", "chips"),
    [
        ("v4-8", "v4:2x2x1", 4),
        ("v5e-8", "v5e:2x4", 8),
        ("v5litepod-16", "v5e:4x4", 16),
        ("v5e-64", "v5e:8x8", 64),
        ("v5p-8", "v5p:2x2x1", 4),
        ("v6e-8", "v6e:2x4", 8),
        ("v6e-256", "v6e:16x16", 256),
        ("tpu7x-8", "tpu7x:2x2x1", 4),
        ("2xv5e-8", "2xv5e:2x4", 16),
        ("4xv5litepod-16", "4xv5e:4x4", 64),
        ("2xtpu7x-8", "2xtpu7x:2x2x1", 8),
    ],
)
def test_both_spellings(counted, shaped, chips):
    """Catches cores taken for chips: v4-8 is four chips, v5e-8 eight."""
    found = topology.parse(counted)
    assert found == topology.parse(shaped)
    assert (found.name, found.chips) == (shaped, chips)
    assert topology.parse(found.accelerator) == found


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("v5x:2x4", "Did you mean 'v5e:2x4'?"),
        ("v5e:2x4x1", "v5e:2x4 = v5e-8"),
        ("v5e-12", "v5e:4x4 = v5e-16"),
        ("v4-9", "v4:2x2x1 = v4-8"),
        ("v4:2x0x1", "Known: v4:2x2x1"),
        ("nonsense", "v6e:16x16 = v6e-256"),
    ],
)
def test_an_unknown_slice_is_refused_with_the_known_ones(name, said):
    """Catches a traceback, or an error that leaves the user to guess."""
    with pytest.raises(UserError, match="unknown topology") as refused:
        topology.parse(name)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("0xv5e:2x4", "'0' is no number of slices"),
        ("1.5xv5e:2x4", "'1.5' is no number of slices"),
        ("-2xv5e-8", "such as 2xv5e-8"),
        ("xv6e-8", "write a whole number of at least 1"),
        ("twoxtpu7x-8", "'two' is no number of slices"),
        ("2xv5x:2x4", "Did you mean 'v5e:2x4'?"),
        ("2xv5e-12", "v5e:4x4 = v5e-16"),
        ("v5e:2x4+v5e:4x4", "unknown topology"),
    ],
)
def test_wrong_numbers_of_slices(name, said):
    """Catches a plan for one slice, or a traceback, where the number of slices is none."""
    with pytest.raises(UserError) as refused:
        topology.parse(name)
    assert said in str(refused.value)


def test_one_slice_is_one_slice():
    """Catches two names, and two rates, of the same thing."""
    assert topology.parse("1xv5e:2x4") == topology.parse("v5e:2x4")
    assert topology.parse("1xv5e:2x4").name == "v5e:2x4"


def test_links_of_a_slice():
    """Catches a ring assumed where the slice is too short for one: two links along a side, one, or none."""
    link = CHIPS["v5e"].link
    assert topology.parse("v5e:1x1").egress == 0
    assert topology.parse("v5e:2x4").egress == 2 * link
    assert topology.parse("v5e:16x16").egress == 4 * link
    assert topology.parse("v5p:2x2x1").egress == 2 * CHIPS["v5p"].link
    assert topology.parse("v4:4x4x4").egress == 6 * CHIPS["v4"].link
    assert topology.parse("3xv4:4x4x4").egress == 6 * CHIPS["v4"].link
    assert topology.parse("tpu7x:2x2x1").egress == 2 * CHIPS["tpu7x"].link / 2  # for each device


def test_every_chip_has_a_peak():
    """Catches a chip whose name is not the one that the table of peaks knows."""
    names = {v: f"TPU {v}" for v in ("v4", "v5e", "v5p", "v6e")} | {"tpu7x": "TPU7x"}
    assert {v: c.peak for v, c in CHIPS.items()} == {
        v: hardware.PEAKS[name] for v, name in names.items()
    }


def test_without_the_compiler(monkeypatch):
    """Catches a traceback where libtpu is not installed: the message says how to install it."""
    monkeypatch.setattr(topology.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'electra_jax\[tpu\]'"):
        topology.devices(topology.parse("v5e:2x4"))
