"""Tables of texts and pairs of texts, with a class or a score: the layout of GLUE and its kin."""

import dataclasses
from collections.abc import Mapping

from electra_jax.spec import UserError
from electra_jax.tasks.examples import TextExample
from electra_jax.tasks.files import tables
from electra_jax.tasks.files.wanted import Wanted, written

Names = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Table:
    """A TSV, CSV, JSON-lines or Parquet file with a row an example.

    `text`, `pair`, `label` and `id` are column names, each with the spellings met in the wild, the
    first that a file has counts. `columns` names the columns of a file without a header.
    `rename`: label as written -> name of the class. `no_gold`: labels that mean that annotators
    disagreed; such rows are left out, as is the custom. `lenient`: rows that official files are
    known to have broken (too few columns, no text) are left out and counted.
    """

    text: Names
    pair: Names = ()
    label: Names = ("label",)
    id: Names = ()
    columns: Names = ()
    rename: Mapping[str, str] = dataclasses.field(default_factory=dict)
    no_gold: Names = ()
    lenient: bool = False

    def read(self, path: str, wanted: Wanted) -> list[TextExample]:
        """The examples of a file; UserError names the line that is at fault."""
        found: list[TextExample] = []
        broken: list[str] | None = [] if self.lenient and wanted.labelled else None
        unsure = 0
        for number, (line, row) in enumerate(tables.rows(path, self.columns, broken)):
            where = f"{path}:{line}"
            text = row[tables.column(path, row, self.text, "--text")]
            pair = row[tables.column(path, row, self.pair, "--pair")] if self.pair else None
            if self.lenient and (text in ("", None) or (self.pair and pair in ("", None))):
                if broken is None:  # a test file: every row is to have its prediction
                    text, pair = text or " ", (pair or " ") if self.pair else None
                else:
                    broken.append(f"{where}: empty text")
                    continue
            else:
                text = wanted.text(text, where, "text")
                pair = wanted.text(pair, where, "pair") if self.pair else None
            said = self._said(where, path, row, wanted)
            if said in self.no_gold and said is not None:
                unsure += 1
                continue
            label = None if said is None else wanted.gold(where, said)
            name = next((name for name in self.id if name in row), None)
            found.append(TextExample(str(row[name] if name else number), text, pair, label))
        if broken:
            wanted.notes.append(f"{path}: {len(broken)} rows left out, the first: {broken[0]}")
        if unsure:
            wanted.notes.append(f"{path}: {unsure} rows without a gold label left out")
        wanted.tell_strange(path)
        if not found:
            raise UserError(f"{path} has no usable row")
        if all(example.text.strip().isdigit() for example in found):
            wanted.notes.append(
                f"{path}: every text is a number, such as {found[0].text.strip()}; is this the texts' "
                "column? Name it with --text"
            )
        if not wanted.labelled and all(example.label == -1 for example in found):
            found = [dataclasses.replace(example, label=None) for example in found]
        return found

    def _said(self, where: str, path: str, row: tables.Row, wanted: Wanted) -> str | None:
        """The label of a row, as the task names it."""
        if not wanted.labelled and not any(name in row for name in self.label):
            return None
        said = written(where, row[tables.column(path, row, self.label, "--label")])
        return self.rename.get(said, said)
