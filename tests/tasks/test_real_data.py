"""The shared corpora: every row is there, every answer comes back, counts are the official ones."""

import numpy as np
import pytest

from electra_jax.finetune.kinds import table as kinds
from electra_jax.spec import UserError
from electra_jax.tasks import tags
from electra_jax.tasks import task as tasks
from electra_jax.tasks.known import catalog
from electra_jax.text import tokenizer

# File -> examples, as the corpora's README and the official releases have them.
ROWS = [
    ("cola", "glue/CoLA/train.tsv", 8551),
    ("cola", "glue/CoLA/dev.tsv", 1043),
    ("sst2", "glue/SST-2/dev.tsv", 872),
    ("mrpc", "glue/MRPC/train.tsv", 3668),
    ("mrpc", "glue/MRPC/dev.tsv", 408),
    ("stsb", "glue/STS-B/train.tsv", 5749),
    ("stsb", "glue/STS-B/dev.tsv", 1500),
    ("qnli", "glue/QNLI/dev.tsv", 5463),
    ("wnli", "glue/WNLI/train.tsv", 635),
    ("wnli", "glue/WNLI/dev.tsv", 71),
    ("snli", "nli/snli-validation.tsv.gz", 9842),
    ("snli", "nli/snli-test.tsv.gz", 9824),
    ("sick", "nli/SICK_train.txt", 4500),
    ("sick-r", "nli/SICK_test_annotated.txt", 4927),
    ("boolq", "qa_yesno/boolq-validation.tsv.gz", 3270),
    ("tnews", "zh/TNEWS/dev.tsv.gz", 10000),
    ("afqmc", "zh/AFQMC/dev.tsv.gz", 4316),
    ("chnsenticorp", "zh/ChnSentiCorp/train.tsv.gz", 9600),
    ("cluener", "zh/CLUENER/dev.json.gz", 1343),
    ("nsmc", "ko/NSMC/ratings_test.txt.gz", 10000),
    ("korsts", "ko/KorSTS/sts-dev.tsv", 1500),
    ("ner", "tagging/conll2003/eng.testa.gz", 3250),
    ("chunk", "tagging/conll2000/test.txt.gz", 2012),
    ("squad1", "squad/dev-v1.1-xquad-en.json.gz", 1190),
    ("squad2", "squad/dev-v2.0-subset.json.gz", 1569),
    ("drcd", "zh/DRCD/DRCD_dev.json.gz", 3524),
    ("korquad", "ko/KorQuAD/KorQuAD_v1.0_dev.json.gz", 5774),
    ("tquad", "tr/TQuAD/dev-v0.1.json.gz", 892),
]
TESTS = [
    ("cola", "CoLA", 1063),
    ("sst2", "SST-2", 1821),
    ("mrpc", "MRPC", 1725),
    ("stsb", "STS-B", 1379),
    ("qnli", "QNLI", 5463),
    ("wnli", "WNLI", 146),
]
# Task, file, vocabulary -> the share of gold spans whose text is the answer, at least.
ANSWERS = [
    ("squad1", "squad/dev-v1.1-xquad-en.json.gz", "bert-base-uncased-vocab.txt", 0.999),
    ("squad2", "squad/dev-v2.0-subset.json.gz", "bert-base-uncased-vocab.txt", 1.0),
    ("squad1", "squad/xquad.de.json.gz", "bert-base-uncased-vocab.txt", 0.998),
    ("squad1", "squad/xquad.zh.json.gz", "bert-base-chinese-vocab.txt", 1.0),
    ("tquad", "tr/TQuAD/dev-v0.1.json.gz", "bert-base-uncased-vocab.txt", 0.96),
]


@pytest.mark.parametrize(("name", "file", "count"), ROWS, ids=lambda value: str(value))
def test_every_row_is_read(shared, name, file, count):
    """Catches rows swallowed by quoting, dropped as broken, or refused for a wrong reason."""
    examples = catalog.get(name).read(shared / file, "dev")
    assert len(examples) == count
    assert tasks.labelled(examples)


@pytest.mark.parametrize(("name", "folder", "count"), TESTS)
def test_every_test_row_is_read(shared, name, folder, count):
    """Catches a submission with rows missing."""
    examples = catalog.get(name).read(shared / "glue" / folder / "test.tsv", "test")
    assert [example.id for example in examples] == [str(number) for number in range(count)]
    assert all(example.label is None for example in examples)


def test_diagnostic(shared):
    """Catches the diagnostic set not found beside MNLI's folder."""
    assert len(catalog.get("mnli").read(shared / "glue", "diagnostic")) == 1104


def test_counts_of_entities(shared):
    """Catches entities lost or torn: 5,942 in eng.testa and 23,852 chunks in the CoNLL-2000 test set."""
    for name, file, count in (
        ("ner", "conll2003/eng.testa.gz", 5942),
        ("chunk", "conll2000/test.txt.gz", 23852),
    ):
        examples = catalog.get(name).read(shared / "tagging" / file, "dev")
        assert sum(len(tags.spans(example.tags)) for example in examples) == count


def test_misplaced_answers_are_counted(shared, capsys):
    """Catches the 200 answers of CMRC2018 that do not lie at their start trained on as if they did."""
    task, path = catalog.get("cmrc2018"), shared / "zh/CMRC2018/cmrc2018_dev.json.gz"
    with pytest.raises(UserError, match=r"200 of 9657 answers are not where"):
        task.read(path, "dev")
    assert len(task.read(path, "dev", carry_on=True)) == 3219
    assert "200 of 9657" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "file", "vocab", "share"), ANSWERS, ids=lambda value: str(value))
def test_answers_come_back(shared, name, file, vocab, share):
    """Catches targets that are off: the text between them must be the answer, spaces at its ends apart.

    What is missing to 1 are answers that begin or end inside a token of the vocabulary: the text
    always holds them.
    """
    examples = catalog.get(name).read(shared / file, "dev")
    made = kinds.features(
        catalog.get(name), examples, tokenizer.load(shared / "vocab" / vocab), 384, training=True
    )
    right, found = 0, set()
    starts, ends = made.targets["start"], made.targets["end"]
    for row in np.flatnonzero(starts > 0):
        example = examples[made.example[row]]
        first, places = made.windows.first[row], made.windows.characters[row]
        text = example.context[places[starts[row] - first][0] : places[ends[row] - first][1]]
        answer = example.answers[0][0].strip()
        assert answer in text
        right += text == answer
        found.add(example.id)
    assert right / np.count_nonzero(starts > 0) >= share
    assert found == {example.id for example in examples if not example.impossible}
