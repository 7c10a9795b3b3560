"""Parquet files for fine-tuning: every kind of row, names of classes, damaged and compressed files."""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from electra_jax.spec import UserError
from electra_jax.tasks import custom
from electra_jax.tasks.files.qafiles import SquadJson
from electra_jax.tasks.files.tables import rows
from electra_jax.tasks.files.wanted import Wanted
from electra_jax.tasks.known import catalog


@pytest.fixture
def parquet(tmp_path: Path):
    """parquet(name, columns, features): the path of a new file; `features` as `datasets` writes them."""
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")

    def write(name: str, columns: dict[str, Any], features: dict[str, Any] | None = None) -> str:
        table = pa.table(columns)
        if features is not None:
            table = table.replace_schema_metadata(
                {"huggingface": json.dumps({"info": {"features": features}})}
            )
        pq.write_table(table, tmp_path / name)
        return str(tmp_path / name)

    return write


def test_texts_and_classes(parquet):
    """Catches bytes that are no texts, and numbers of classes in place of their names."""
    names = {"names": ["negative", "positive"], "_type": "ClassLabel"}
    columns = {"sentence": [b"fine", "schön".encode()], "label": [1, 0]}
    task = custom.make("classify", text="sentence")
    found = task.read(parquet("a.parquet", columns), "train")
    assert [(e.text, e.label) for e in found] == [("fine", "1"), ("schön", "0")]
    path = parquet("b.parquet", columns, {"sentence": {"_type": "Value"}, "label": names})
    assert [e.label for e in task.read(path, "train")] == ["positive", "negative"]
    assert [e.label for e in catalog.get("sst2").read(path, "dev")] == ["1", "0"]


@pytest.mark.parametrize("listed", [lambda f: {"feature": f, "_type": "Sequence"}, lambda f: [f]])
def test_lists_of_tags(parquet, listed):
    """Catches tags of the datasets library that stay numbers, in any way that it writes lists."""
    names = {"names": ["O", "B-PER", "I-PER"], "_type": "ClassLabel"}
    columns = {"tokens": [["Bob", "sat"], ["it"]], "ner_tags": [[1, 0], [0]]}
    path = parquet("a.parquet", columns, {"ner_tags": listed(names)})
    for task in (custom.make("tag"), catalog.get("ner")):
        assert [e.tags for e in task.read(path, "train")] == [("B-PER", "O"), ("O",)]
    bare = parquet("b.parquet", columns)
    with pytest.raises(UserError, match=r"b\.parquet:1: 'tags' are numbers; .*tag_names"):
        custom.make("tag").read(bare, "train")
    assert custom.make("tag", tag_names=names["names"]).read(bare, "train")[0].tags[0] == "B-PER"


def test_questions(parquet):
    """Catches SQuAD as the datasets library writes it refused for not being SQuAD's JSON."""
    columns = {
        "id": ["q", "r"],
        "question": ["?", "?"],
        "context": ["a b", "a b"],
        "answers": [{"text": ["b"], "answer_start": [2]}, {"text": [], "answer_start": []}],
    }
    path = parquet("a.parquet", columns)
    for task in (custom.make("qa"), catalog.get("squad2")):
        found = task.read(path, "train")
        assert [e.answers for e in found] == [(("b", 2),), ()] and found[1].impossible


def test_what_is_wrong(parquet, tmp_path, monkeypatch):
    """Catches a traceback of Arrow, a null taken for the text None, and an extra that is not named."""
    path = parquet("a.parquet", {"text": ["x", None], "label": ["a", "b"]})
    with pytest.raises(UserError, match=r"a\.parquet:2: the text 'text' is empty"):
        custom.make("classify").read(path, "train")
    with pytest.raises(UserError, match="no column 'label'"):
        custom.make("classify").read(parquet("b.parquet", {"text": ["x"]}), "train")
    with pytest.raises(UserError, match="has no rows"):
        list(rows(parquet("c.parquet", {"text": []})))
    with pytest.raises(UserError, match="a text near row 1 is not UTF-8"):
        list(rows(parquet("d.parquet", {"text": [b"\xff"]})))
    broken = tmp_path / "e.parquet"
    broken.write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match="e.parquet is no readable Parquet file"):
        list(rows(str(broken)))
    packed = tmp_path / "a.parquet.gz"
    packed.write_bytes(gzip.compress(Path(path).read_bytes()))
    assert [row["label"] for _, row in rows(str(packed))] == ["a", "b"]
    with pytest.raises(UserError, match="is a Parquet file; expected text or JSON"):
        SquadJson().read(path, Wanted())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'electra-jax\[parquet\]'"):
        list(rows(path))


def test_tasks_whose_own_files_are_not_tables(parquet):
    """Catches the Parquet files of KorQuAD, RACE and their kin refused for their official layout."""
    columns = {"id": ["1"], "question": ["q"], "context": ["a cat"]}
    path = parquet("qa.parquet", columns | {"answers": [{"text": ["cat"], "answer_start": [2]}]})
    for name in ("korquad", "tquad", "cmrc2018", "drcd", "mrqa"):
        assert catalog.get(name).read(path, "dev")[0].answers == (("cat", 2),)
    columns = {"article": ["a"], "question": ["q"], "options": [["x", "y"]], "answer": ["B"]}
    assert catalog.get("race").read(parquet("race.parquet", columns), "dev")[0].label == 1


def test_numbers_of_glues_classes(parquet):
    """Catches 0, 1 and 2 of MNLI refused where no names come with them, and RTE's turned round."""
    columns = {"premise": ["a"] * 3, "hypothesis": ["b"] * 3, "label": [0, 1, 2]}
    said = ["entailment", "neutral", "contradiction"]
    found = catalog.get("mnli").read(parquet("mnli.parquet", columns), "dev")
    assert [example.label for example in found] == said
    columns = {"sentence1": ["a"] * 2, "sentence2": ["b"] * 2, "label": [0, 1]}
    found = catalog.get("rte").read(parquet("rte.parquet", columns), "dev")
    assert [example.label for example in found] == ["entailment", "not_entailment"]


def test_labels_that_are_nan(parquet):
    """Catches missing labels, NaN in a column of numbers, learned as a class "nan"."""
    path = parquet("a.parquet", {"text": ["a", "b"], "label": [1.0, float("nan")]})
    for kind in ("classify", "regress"):
        task = custom.make(kind)
        with pytest.raises(UserError, match=":2: the label is empty"):
            task.read(path, "train")
        assert task.read(path, "test")[1].label is None


def test_a_folder_of_the_users(tmp_path):
    """Catches a folder of parts given as a file answered with splits that the task does not have."""
    with pytest.raises(UserError, match="is a folder; name one file for train"):
        custom.make("classify").read(tmp_path, "train")
