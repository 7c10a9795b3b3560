"""The table of prices: the shipped one, and every wrong line named."""

import pytest

from electra_jax import cli
from electra_jax.plan import prices
from electra_jax.spec import UserError

HEAD = "chip,on_demand,spot,currency,date,source"
GOOD = "v5e,1.20,0.24,USD,2026-11-28,somewhere"


def test_the_shipped_table_is_dated_and_sourced():
    """Catches a shipped price without the day and the page that it is from."""
    table = prices.read()
    assert table.currency == "USD" and {"v4", "v5e", "v5p", "v6e", "h100"} <= set(table.chips)
    for price in table.chips.values():
        assert price.source and price.date >= "2026"
        assert price.spot is None or price.spot < price.on_demand
    assert table.chips["v5e"].money(10) == pytest.approx(12.0)


def test_comments_blank_lines_and_no_spot(tmp_path):
    """Catches a table that a person cannot annotate, and a chip that must be sold on spot."""
    path = tmp_path / "p.csv"
    path.write_text(f'# mine\n\n{HEAD}\ncpu, 0.1,,EUR,2026-01-02,"a, b"\n')
    found = prices.read(path)
    assert found.currency == "EUR" and found.chips["cpu"].source == "a, b"
    assert found.chips["cpu"].money(3, spot=True) is None


@pytest.mark.parametrize(
    "lines, said",
    [
        ([GOOD], "line 1: found 'v5e,1.20"),
        ([HEAD, "v5e,1.20,USD"], "line 2: found 3 cells; expected 6"),
        ([HEAD, GOOD, "v9z,1,1,USD,2026-11-28,x"], "line 3: unknown chip 'v9z'; expected one of v4"),
        ([HEAD, GOOD, GOOD], "line 3: v5e has a price already"),
        ([HEAD, "# x", GOOD.replace("1.20", "-1")], "line 3: on_demand '-1'; expected the price"),
        ([HEAD, GOOD.replace("0.24", "nan")], "line 2: spot 'nan'; expected"),
        ([HEAD, GOOD.replace("1.20", "")], "line 2: on_demand ''; expected"),
        ([HEAD, GOOD.replace("2026-11-28", "28.11.2026")], "line 2: date '28.11.2026'; expected"),
        ([HEAD, GOOD, "v6e,1,1,EUR,2026-11-28,x"], "line 3: found currency EUR; expected USD"),
        ([HEAD, GOOD.replace("USD", "")], "line 2: no currency"),
        ([HEAD], "holds no prices"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_named(tmp_path, lines, said):
    """Catches a wrong line that is passed over, or told without file and line."""
    path = tmp_path / "prices.csv"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError) as error:
        prices.read(path)
    assert str(path) in str(error.value) and said in str(error.value)
    assert "\n" not in str(error.value)


def test_mistakes_of_the_command_cost_nothing(tmp_path, capsys, monkeypatch):
    """Catches a budget, a deadline, a price file or a picture that is looked at after the compilation."""
    monkeypatch.setattr("electra_jax.plan.command.compile_step", lambda *a: pytest.fail("compiled"))
    for more, said in (
        (["--budget", "-3"], "--budget '-3' is no amount"),
        (["--budget", "24h"], "--budget '24h' is no amount"),
        (["--budget", "inf"], "--budget 'inf' is no amount"),
        (["--deadline", "500"], "--deadline '500' is no stretch of time"),
        (["--deadline", "0h"], "--deadline '0h' is no stretch of time"),
        (["--price", str(tmp_path / "none.csv")], "cannot read the price file"),
        (["--plot", str(tmp_path / "a.txt")], ".png"),
        (["--plot", str(tmp_path / "none" / "a.png")], "there is no folder"),
        (["--topology", "h100-16"], "a box has 1 to 8 GPUs"),
        (["--topology", "a100-8"], "unknown topology 'a100-8'"),
    ):
        assert cli.main(["plan", "--config", "tiny", "--topology", "cpu", *more]) == 2, more
        told = capsys.readouterr().err
        assert told.startswith("error: ") and said in told, told
    assert cli.main(["plan", "--config", "tiny"]) == 2
    assert "which machine?" in capsys.readouterr().err
