"""Parquet files for fine-tuning: every kind of row, names of classes, damaged and compressed files."""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from electra_jax.finetune import tasks
from electra_jax.finetune.tables import rows
from electra_jax.spec import UserError


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
    task = tasks.custom("classify", text="sentence")
    found = task.read(parquet("a.parquet", columns), "train")
    assert [(e.text, e.label) for e in found] == [("fine", "1"), ("schön", "0")]
    path = parquet("b.parquet", columns, {"sentence": {"_type": "Value"}, "label": names})
    assert [e.label for e in task.read(path, "train")] == ["positive", "negative"]
    assert [e.label for e in tasks.get("sst2").read(path, "dev")] == ["1", "0"]


@pytest.mark.parametrize("listed", [lambda f: {"feature": f, "_type": "Sequence"}, lambda f: [f]])
def test_lists_of_tags(parquet, listed):
    """Catches tags of the datasets library that stay numbers, in any way that it writes lists."""
    names = {"names": ["O", "B-PER", "I-PER"], "_type": "ClassLabel"}
    columns = {"tokens": [["Bob", "sat"], ["it"]], "ner_tags": [[1, 0], [0]]}
    path = parquet("a.parquet", columns, {"ner_tags": listed(names)})
    for task in (tasks.custom("tag"), tasks.get("ner")):
        assert [e.tags for e in task.read(path, "train")] == [("B-PER", "O"), ("O",)]
    bare = parquet("b.parquet", columns)
    with pytest.raises(UserError, match=r"b\.parquet:1: 'tags' are numbers; .*tag_names"):
        tasks.custom("tag").read(bare, "train")
    assert tasks.custom("tag", tag_names=names["names"]).read(bare, "train")[0].tags[0] == "B-PER"


def test_questions(parquet):
    """Catches SQuAD as the datasets library writes it refused for not being SQuAD's JSON."""
    columns = {
        "id": ["q", "r"],
        "question": ["?", "?"],
        "context": ["a b", "a b"],
        "answers": [{"text": ["b"], "answer_start": [2]}, {"text": [], "answer_start": []}],
    }
    path = parquet("a.parquet", columns)
    for task in (tasks.custom("qa"), tasks.get("squad2")):
        found = task.read(path, "train")
        assert [e.answers for e in found] == [(("b", 2),), ()] and found[1].impossible


def test_what_is_wrong(parquet, tmp_path, monkeypatch):
    """Catches a traceback of Arrow, a null taken for the text None, and an extra that is not named."""
    path = parquet("a.parquet", {"text": ["x", None], "label": ["a", "b"]})
    with pytest.raises(UserError, match=r"a\.parquet:2: the text 'text' is empty"):
        tasks.custom("classify").read(path, "train")
    with pytest.raises(UserError, match="no column 'label'"):
        tasks.custom("classify").read(parquet("b.parquet", {"text": ["x"]}), "train")
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
        tasks.get("mrqa").read(path, "train")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'electra-jax\[parquet\]'"):
        list(rows(path))
