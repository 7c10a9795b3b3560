"""The table of several topologies: what each row takes from its plans, phases included."""

from electra_jax.plan import compare

MONEY = {"currency": "USD", "on_demand": 192.0, "spot": 38.4, "date": "2026-11-28", "source": "x"}


def plan(topology: str, fits: bool = True, **more) -> dict:
    """A made-up plan with what the table reads."""
    memory = {"fits": fits, "needed_bytes": 3 * 2**30, "limit_bytes": 16 * 2**30}
    found = {"topology": topology, "devices": 16, "slices": 1, "memory": memory, "mesh": None}
    found |= {"config": "base", "steps": 1000}
    if fits:
        found |= {
            "mesh": {"data": 8, "fsdp": 2},
            "steps": 1000,
            "batch": 128,
            "seq_len": 128,
            "time": {"step_s": 0.01},
            "exchanges": [{"between_slices": False, "exposed_seconds": 0.009}],
            "run": {"mfu": 0.4, "hours": 10.0, "chip_hours": 160.0, "money": MONEY},
        }
    return found | more


def cells(table: str) -> list[list[str]]:
    return [[c for c in line.strip().split("  ") if c] for line in table.strip().splitlines()]


def test_a_row_a_topology():
    """Catches a table that hides what waits for the network, and one that gives a time to what does not fit."""
    waits = [{"between_slices": True, "exposed_seconds": 0.002}]
    two = plan("2xv5e:2x4", slices=2, exchanges=waits)
    head, one, several, large = cells(
        compare.table([[plan("v5e:4x4")], [two], [plan("v5e:2x2", fits=False)]])
    )
    assert head[0] == "topology" and head[-3:] == ["chip-hours", "on demand", "spot"]
    assert [c.strip() for c in one] == [
        "v5e:4x4", "16", "8 x 2", "3.00 GiB of 16.00 GiB", "10 ms", "1,638,400", "40%", "10.0 h", "160",
        "192 USD", "38.40 USD",
    ]  # fmt: skip
    assert "20%" in [c.strip() for c in several]
    assert large[-1].strip() == "3.00 GiB of 16.00 GiB: no"


def test_phases_come_to_one_row():
    """Catches a row of the first phase alone, and rates that are not weighted by how long each phase takes."""
    long = plan("v6e:2x4", steps=3000, seq_len=512, time={"step_s": 0.03})
    long["run"] = {"mfu": 0.6, "hours": 30.0, "chip_hours": 480.0, "money": None}
    _, row = cells(compare.table([[plan("v6e:2x4"), long]]))
    row = [c.strip() for c in row]
    assert row[4] == "25 ms" and row[-2:] == [
        "40.0 h",
        "640",
    ]  # no sum of money without one of its parts
    assert row[5] == f"{(1000 * 128 * 128 + 3000 * 128 * 512) / 100:,.0f}"
    assert row[6] == "58%"
