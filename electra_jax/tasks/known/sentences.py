"""Inference, yes/no questions and sentiment in other layouts than GLUE's, in four languages."""

from electra_jax.tasks.files.textfiles import Table
from electra_jax.tasks.known.glue import INFERENCE
from electra_jax.tasks.task import Task

_TSV = {"train": ("train.tsv",), "dev": ("dev.tsv",), "test": ("test.tsv",)}
_BINARY = ("0", "1")
_SENTIMENT = {"negative": "0", "positive": "1"}
# TNEWS's codes and names.
_NEWS = {
    "100": "news_story",
    "101": "news_culture",
    "102": "news_entertainment",
    "103": "news_sports",
    "104": "news_finance",
    "106": "news_house",
    "107": "news_car",
    "108": "news_edu",
    "109": "news_tech",
    "110": "news_military",
    "112": "news_travel",
    "113": "news_world",
    "114": "news_stock",
    "115": "news_agriculture",
    "116": "news_game",
}


_SICK = {
    "train": ("SICK_train.txt",),
    "dev": ("SICK_trial.txt",),
    "test": ("SICK_test_annotated.txt", "SICK_test.txt"),
}
TASKS = (
    Task(
        "snli",
        "classify",
        Table(
            ("sentence1", "premise"),
            ("sentence2", "hypothesis"),
            ("gold_label", "label"),
            ("pairID",),
            rename={"0": "entailment", "1": "neutral", "2": "contradiction"},
            no_gold=("-", "-1"),
        ),
        ("accuracy",),
        "accuracy",
        {
            "train": ("snli_1.0_train.jsonl", "snli_1.0_train.txt", "snli-train.tsv", "train.tsv"),
            "dev": ("snli_1.0_dev.jsonl", "snli_1.0_dev.txt", "snli-validation.tsv", "dev.tsv"),
            "test": ("snli_1.0_test.jsonl", "snli_1.0_test.txt", "snli-test.tsv", "test.tsv"),
        },
        ("snli_1.0", "SNLI", "snli"),
        labels=INFERENCE,
        tfds="snli",
    ),
    Task(
        "sick",
        "classify",
        Table(
            ("sentence_A",),
            ("sentence_B",),
            ("entailment_judgment", "entailment_label"),
            ("pair_ID",),
            rename={label.upper(): label for label in INFERENCE},
        ),
        ("accuracy",),
        "accuracy",
        _SICK,
        ("SICK", "sick"),
        labels=INFERENCE,
        tfds="sick",
    ),
    Task(
        "sick-r",
        "regress",
        Table(("sentence_A",), ("sentence_B",), ("relatedness_score",), ("pair_ID",)),
        ("pearson", "spearman", "mse"),
        "pearson",
        _SICK,
        ("SICK", "sick"),
        score_range=(1, 5),
        epochs=10,
        unordered=True,
        tfds="sick",
    ),
    Task(
        "boolq",
        "classify",
        Table(
            ("question",),
            ("passage",),
            ("answer", "label"),
            ("index", "idx"),
            rename={"0": "false", "1": "true", "False": "false", "True": "true"},
        ),
        ("accuracy",),
        "accuracy",
        {
            "train": ("train.jsonl", "boolq-train.tsv"),
            "dev": ("dev.jsonl", "val.jsonl", "boolq-validation.tsv"),
            "test": ("test.jsonl",),
        },
        ("BoolQ", "boolq"),
        labels=("false", "true"),
        max_len=256,
        tfds="bool_q",
    ),
    Task(
        "tnews",
        "classify",
        Table(
            ("sentence",),
            label=("label_desc", "label"),
            id=("id",),
            columns=("sentence", "label"),
            rename=_NEWS,
        ),
        ("accuracy",),
        "accuracy",
        {
            "train": ("train.json", "train.tsv"),
            "dev": ("dev.json", "dev.tsv"),
            "test": ("test.json", "test1.0.json", "test.tsv"),
        },
        ("TNEWS", "tnews", "tnews_public"),
        labels=tuple(_NEWS.values()),
    ),
    Task(
        "afqmc",
        "classify",
        Table(
            ("sentence1",),
            ("sentence2",),
            id=("id",),
            columns=("sentence1", "sentence2", "label"),
            rename={"different": "0", "same": "1"},
        ),
        ("accuracy", "f1"),
        "accuracy",
        {
            "train": ("train.json", "train.tsv"),
            "dev": ("dev.json", "dev.tsv"),
            "test": ("test.json", "test.tsv"),
        },
        ("AFQMC", "afqmc", "afqmc_public"),
        labels=_BINARY,
        positive="1",
        unordered=True,
    ),
    Task(
        "chnsenticorp",
        "classify",
        Table(("text_a",), id=("qid",), rename=_SENTIMENT),
        ("accuracy",),
        "accuracy",
        _TSV,
        ("ChnSentiCorp", "chnsenticorp"),
        labels=_BINARY,
        max_len=256,
    ),
    Task(
        "nsmc",
        "classify",
        Table(("document",), id=("id",), rename=_SENTIMENT, lenient=True),
        ("accuracy",),
        "accuracy",
        {
            "train": ("ratings_train.txt",),
            "dev": ("ratings_test.txt",),
            "test": ("ratings_test.txt",),
        },
        ("NSMC", "nsmc"),
        labels=_BINARY,
    ),
    Task(
        "korsts",
        "regress",
        Table(("sentence1",), ("sentence2",), ("score",)),
        ("pearson", "spearman", "corr"),
        "spearman",
        {"train": ("sts-train.tsv",), "dev": ("sts-dev.tsv",), "test": ("sts-test.tsv",)},
        ("KorSTS", "korsts", "kor-sts"),
        score_range=(0, 5),
        epochs=10,
        unordered=True,
    ),
)
