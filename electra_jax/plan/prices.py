"""What an hour of a chip costs, from a table in a file that the user may replace."""

import csv
import math
import time
from dataclasses import dataclass
from pathlib import Path

from electra_jax.plan import topology
from electra_jax.plan.chips import CHIPS, GPUS
from electra_jax.spec import UserError

SHIPPED = Path(__file__).parent / "prices.csv"
COLUMNS = ("chip", "on_demand", "spot", "currency", "date", "source")
KNOWN = (*CHIPS, *GPUS, topology.CPU)


@dataclass(frozen=True)
class Price:
    """Of one chip for an hour, in the table's currency; None: not sold so."""

    on_demand: float
    spot: float | None
    date: str  # 2026-11-28
    source: str

    def money(self, chip_hours: float, spot: bool = False) -> float | None:
        """What so many chip-hours cost."""
        rate = self.spot if spot else self.on_demand
        return None if rate is None else rate * chip_hours


@dataclass(frozen=True)
class Prices:
    """A table of prices."""

    path: Path
    currency: str
    chips: dict[str, Price]


def read(path: str | Path = SHIPPED) -> Prices:
    """The table in a CSV file, lines that begin with # left out; UserError names file, line and what is expected."""
    path = Path(path)
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the price file {path}: {error}") from None
    chips: dict[str, Price] = {}
    currency = ""
    header = False
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"{path}, line {number}"
        cells = next(csv.reader([line]))
        values = [cell.strip() for cell in cells]
        if not header:
            if tuple(values) != COLUMNS:
                raise UserError(f"{where}: found {line!r}; expected the header {','.join(COLUMNS)}")
            header = True
            continue
        if len(values) != len(COLUMNS):
            raise UserError(
                f"{where}: found {len(values)} cells; expected {len(COLUMNS)}: {','.join(COLUMNS)}"
            )
        chip, price, its = _line(dict(zip(COLUMNS, values, strict=True)), where)
        if chip in chips:
            raise UserError(f"{where}: {chip} has a price already; expected one line a chip")
        if currency and its != currency:
            raise UserError(f"{where}: found currency {its}; expected {currency}, as above")
        currency, chips[chip] = its, price
    if not chips:
        raise UserError(f"{path} holds no prices; expected lines of {','.join(COLUMNS)}")
    return Prices(path, currency, chips)


def _line(cells: dict[str, str], where: str) -> tuple[str, Price, str]:
    """(chip, its price, currency) of a line."""
    if cells["chip"] not in KNOWN:
        raise UserError(
            f"{where}: unknown chip {cells['chip']!r}; expected one of {', '.join(KNOWN)}"
        )
    if not cells["currency"]:
        raise UserError(f"{where}: no currency; expected one such as USD")
    try:
        time.strptime(cells["date"], "%Y-%m-%d")
    except ValueError:
        raise UserError(
            f"{where}: date {cells['date']!r}; expected the day of the price as 2026-11-28"
        ) from None
    price = Price(
        on_demand=_number(cells, "on_demand", where),
        spot=_number(cells, "spot", where) if cells["spot"] else None,
        date=cells["date"],
        source=cells["source"],
    )
    return cells["chip"], price, cells["currency"]


def _number(cells: dict[str, str], name: str, where: str) -> float:
    try:
        value = float(cells[name])
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UserError(
            f"{where}: {name} {cells[name]!r}; expected the price of a chip-hour, a number above 0"
        )
    return value
