"""The catalog: every known task reads its official layout; what is not there is said."""

import dataclasses
import json

import pytest

from electra_jax.spec import UserError
from electra_jax.tasks import custom, metrics, qa_metrics
from electra_jax.tasks import task as tasks
from electra_jax.tasks.examples import TextExample
from electra_jax.tasks.known import catalog

_PARSES = "sentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse"
_MNLI = f"index\tpromptID\tpairID\tgenre\t{_PARSES}\tsentence1\tsentence2"
_SICK = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n1\ta b\tc d\t4.5\tNEUTRAL\n"
# Two rows in the official layout: task, split, file -> what the first example must be.
LAYOUTS = [
    ("cola", "train", "CoLA/train.tsv", "gj04\t1\t\ta b\nx\t0\t*\tc\n", ("0", "a b", None, "1")),
    ("cola", "test", "CoLA/test.tsv", "index\tsentence\n0\ta b\n", ("0", "a b", None, None)),
    ("sst2", "dev", "SST-2/dev.tsv", "sentence\tlabel\na b \t1\n", ("0", "a b ", None, "1")),
    (
        "mrpc",
        "train",
        "MRPC/train.tsv",
        '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t5\t6\t"a\tb\n',
        ("0", '"a', "b", "0"),
    ),
    (
        "stsb",
        "dev",
        "STS-B/dev.tsv",
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
        "3\tg\tf\t2012\t1\tn\tn\ta\tb\t4.750\n",
        ("3", "a", "b", 4.75),
    ),
    (
        "qqp",
        "train",
        "QQP/train.tsv",
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n9\t1\t2\ta\tb\t1\n8\t3\n",
        ("9", "a", "b", "1"),
    ),
    ("qqp", "test", "QQP/test.tsv", "id\tquestion1\tquestion2\n4\ta\tb\n", ("4", "a", "b", None)),
    (
        "mnli",
        "train",
        "MNLI/train.tsv",
        f"{_MNLI}\tlabel1\tgold_label\n0\t1\t1n\tx\t(\t(\t(\t(\ta\tb\tneutral\tneutral\n",
        ("0", "a", "b", "neutral"),
    ),
    (
        "mnli",
        "dev_mismatched",
        "MNLI/dev_mismatched.tsv",
        f"{_MNLI}\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label\n"
        "0\t1\t1n\tx\t(\t(\t(\t(\ta\tb\tn\tn\tn\tn\tn\tentailment\n",
        ("0", "a", "b", "entailment"),
    ),
    (
        "mnli",
        "diagnostic",
        "diagnostic/diagnostic.tsv",
        "index\tsentence1\tsentence2\n7\ta\tb\n",
        ("7", "a", "b", None),
    ),
    (
        "qnli",
        "train",
        "QNLI/train.tsv",
        "index\tquestion\tsentence\tlabel\n2\ta\tb\tnot_entailment\n",
        ("2", "a", "b", "not_entailment"),
    ),
    (
        "rte",
        "dev",
        "RTE/dev.tsv",
        "index\tsentence1\tsentence2\tlabel\n2\ta\tb\tentailment\n",
        ("2", "a", "b", "entailment"),
    ),
    ("wnli", "dev", "WNLI/dev.tsv", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\t1\n", ("0", "a", "b", "1")),
    ("ax", "test", "AX/AX.tsv", "index\tsentence1\tsentence2\n0\ta\tb\n", ("0", "a", "b", None)),
    (
        "snli",
        "train",
        "snli_1.0/snli_1.0_train.jsonl",
        '{"gold_label": "-", "sentence1": "x", "sentence2": "y", "pairID": "0"}\n'
        '{"gold_label": "entailment", "sentence1": "a", "sentence2": "b", "pairID": "p"}\n',
        ("p", "a", "b", "entailment"),
    ),
    ("sick", "train", "SICK/SICK_train.txt", _SICK, ("1", "a b", "c d", "neutral")),
    ("sick-r", "train", "SICK/SICK_train.txt", _SICK, ("1", "a b", "c d", 4.5)),
    (
        "boolq",
        "train",
        "BoolQ/train.jsonl",
        '{"question": "a", "title": "t", "answer": false, "passage": "b"}\n',
        ("0", "a", "b", "false"),
    ),
    (
        "tnews",
        "train",
        "tnews_public/train.json",
        '{"label": "108", "label_desc": "news_edu", "sentence": "a", "keywords": "k"}\n',
        ("0", "a", None, "news_edu"),
    ),
    ("tnews", "dev", "TNEWS/dev.tsv", "a\tnews_edu\n", ("0", "a", None, "news_edu")),
    ("tnews", "train", "TNEWS/train.json", '{"label": "108", "sentence": "a"}\n', ("0", "a", None, "news_edu")),
    (
        "afqmc",
        "train",
        "afqmc_public/train.json",
        '{"sentence1": "a", "sentence2": "b", "label": "0"}\n',
        ("0", "a", "b", "0"),
    ),
    ("afqmc", "dev", "AFQMC/dev.tsv", "a\tb\t1\n", ("0", "a", "b", "1")),
    ("chnsenticorp", "dev", "ChnSentiCorp/dev.tsv", 'label\ttext_a\n1\t"a\n', ("0", '"a', None, "1")),
    ("nsmc", "train", "NSMC/ratings_train.txt", "id\tdocument\tlabel\n5\ta\t0\n6\t\t1\n", ("5", "a", None, "0")),
    (
        "korsts",
        "dev",
        "KorSTS/sts-dev.tsv",
        "genre\tfilename\tyear\tid\tscore\tsentence1\tsentence2\ng\tf\ty\t0000\t5.000\ta\tb\n",
        ("0", "a", "b", 5.0),
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "split", "file", "text", "expected"), LAYOUTS, ids=lambda value: str(value)[:24]
)
def test_official_layouts(made, tmp_path, name, split, file, text, expected):
    """Catches a task whose columns, labels or file names are not those of the official release."""
    made(file, text)
    found = catalog.get(name).read(tmp_path, split)
    assert found[0] == TextExample(*expected)


def test_every_text_task_has_a_layout_here():
    """Catches a new entry of the catalog that nobody tried."""
    texts = {name for name, task in catalog.TASKS.items() if task.kind in ("classify", "regress")}
    assert texts == {row[0] for row in LAYOUTS}


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("squad1", "train-v1.1.json"),
        ("squad2", "SQuAD/train-v2.0.json"),
        ("cmrc2018", "cmrc2018_train.json"),
        ("drcd", "DRCD/DRCD_training.json"),
        ("korquad", "KorQuAD_v1.0_train.json"),
        ("tquad", "train-v0.1.json"),
    ],
)
def test_question_files(made, tmp_path, name, file):
    """Catches a wrong official file name."""
    qa = {"id": 1, "question": "q", "answers": [{"text": "b", "answer_start": 2}]}
    made(file, json.dumps({"data": [{"paragraphs": [{"context": "a b", "qas": [qa]}]}]}))
    assert catalog.get(name).read(tmp_path, "train")[0].answers == (("b", 2),)


@pytest.mark.parametrize(
    ("name", "file", "split"),
    [("ner", "eng.testa", "dev"), ("chunk", "conll2000/test.txt", "test")],
)
def test_tag_files(made, tmp_path, name, file, split):
    """Catches a wrong official file name."""
    made(file, {"ner": "U.N. NNP I-NP I-ORG\n", "chunk": "He PRP B-NP\n"}[name])
    assert catalog.get(name).read(tmp_path, split)[0].tags == (
        {"ner": "B-ORG", "chunk": "B-NP"}[name],
    )


def test_entries_are_consistent():
    """Catches a task whose main metric is none of those computed, or whose positive class is none."""
    keys = {"squad1": "f1", "squad2": "f1", "korquad": "f1", "cmrc": "f1", "entities": "f1"}
    keys["cluener_official"] = "cluener_official"
    for name, task in catalog.TASKS.items():
        assert name == task.name
        assert task.main_metric in {keys.get(metric, metric) for metric in task.metrics}
        assert set(task.metrics) <= {*metrics.METRICS, *keys}
        assert (task.positive is not None) == ("f1" in task.metrics)
        assert task.positive is None or task.positive in task.labels
        if task.kind == "regress":
            assert task.score_range is not None
    assert set(catalog.ALIASES.values()) <= set(catalog.TASKS)
    assert not set(catalog.ALIASES) & set(catalog.TASKS)
    assert qa_metrics.NULL_THRESHOLD == 1.0


def test_unknown_names(tmp_path):
    """Catches a mistyped task or a missing file that ends in a traceback."""
    with pytest.raises(UserError, match=r"unknown task 'sqaud2'. Did you mean 'squad2'\?"):
        catalog.get("sqaud2")
    with pytest.raises(UserError, match=r"no file for train; looked for train\.tsv .*SST-2"):
        catalog.get("sst2").read(tmp_path, "train")
    with pytest.raises(UserError, match="no split 'valid'; splits: train, dev, test"):
        catalog.get("sst2").read(tmp_path, "valid")
    with pytest.raises(UserError, match=r"gone\.tsv for dev does not exist"):
        catalog.get("sst2").read(tmp_path / "gone.tsv", "dev")


def test_labels_of_the_training_data(made):
    """Catches classes ordered by chance or as text, and labels of dev that training never saw."""
    task = custom.make("classify")
    train = task.read(made("a.tsv", "text\tlabel\na\t10\nb\t9\nc\t10\n"), "train")
    assert tasks.labels_of(task, train) == ("9", "10")
    dev = task.read(made("b.tsv", "text\tlabel\na\t9\nb\t11\n"), "dev")
    with pytest.raises(UserError, match=r"dev\.tsv: example 2 \(id 1\): unknown label '11'"):
        tasks.check_labels("dev.tsv", dev, ("9", "10"))
    with pytest.raises(UserError, match="have 1 classes"):
        tasks.labels_of(task, train[:1])


def test_both_orders():
    """Catches doubling that loses labels or turns single texts round."""
    one, two = TextExample("0", "a", "b", "1"), TextExample("1", "c")
    assert tasks.both_orders([one, two]) == [one, two, dataclasses.replace(one, text="b", pair="a")]


def test_carry_on_is_said(made, capsys):
    """Catches empty texts kept or refused without a word about the way on."""
    path = made("dev.tsv", "sentence\tlabel\n \t1\na\t0\n")
    with pytest.raises(UserError, match=r"--config\.data\.carry_on=true"):
        catalog.get("sst2").read(path, "dev")
    assert len(catalog.get("sst2").read(path, "dev", carry_on=True)) == 2
    assert "1 empty texts kept" in capsys.readouterr().err


def test_the_page_lists_the_tasks(root):
    """Catches a task that docs/tasks.md does not have, or has with another kind, metric or epochs."""
    page = (root / "docs" / "tasks.md").read_text()
    rows = [row.split(" | ") for row in page.splitlines() if row.startswith("| `")]
    shown = {row[0].strip("| `"): row for row in rows if len(row) == 7}
    assert list(shown) == list(catalog.TASKS)
    for name, task in catalog.TASKS.items():
        assert shown[name][1] == task.kind
        assert f"**{task.main_metric}**" in shown[name][4]
        assert shown[name][5:] == [f"{task.epochs:g}", f"{task.max_len} |"]
        assert all(f"`{files[0]}`" in shown[name][3] for files in task.files.values())
    assert all(f"`{alias}` ({name})" in page for alias, name in catalog.ALIASES.items())
