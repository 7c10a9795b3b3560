"""The GLUE benchmark: nine tasks and the diagnostic set, an entry each."""

from electra_jax.tasks.files.textfiles import Table
from electra_jax.tasks.task import Leaderboard, Task

_TSV = {"train": ("train.tsv",), "dev": ("dev.tsv",), "test": ("test.tsv",)}
_BINARY = ("0", "1")
# The order is the same for every inference task, so that a head of one suits the others.
INFERENCE = ("entailment", "neutral", "contradiction")
_ENTAILED = ("entailment", "not_entailment")
_ID = ("index", "id")
# What the `datasets` library numbers the classes, which its JSON and Parquet files may have.
_INFERENCE_NUMBERS = {str(number): name for number, name in enumerate(INFERENCE)}
_ENTAILED_NUMBERS = {str(number): name for number, name in enumerate(_ENTAILED)}


def _board(name: str, **more: str) -> Leaderboard:
    """GLUE's file of the test split, and of other splits."""
    return Leaderboard(
        {"test": f"{name}.tsv", **{split: f"{file}.tsv" for split, file in more.items()}}
    )


TASKS = (
    Task(
        name="cola",
        kind="classify",
        layout=Table(
            ("sentence",),
            columns=("source", "label", "mark", "sentence"),
            rename={"unacceptable": "0", "acceptable": "1"},
        ),
        metrics=("mcc", "accuracy"),
        main_metric="mcc",
        files=_TSV,
        folders=("CoLA", "cola"),
        test_layout=Table(("sentence",), id=_ID),
        tfds_layout=Table(("sentence",), rename={"unacceptable": "0", "acceptable": "1"}),
        labels=_BINARY,
        leaderboard=_board("CoLA"),
        tfds="glue/cola",
    ),
    Task(
        name="sst2",
        kind="classify",
        layout=Table(("sentence",), id=_ID, rename={"negative": "0", "positive": "1"}),
        metrics=("accuracy",),
        main_metric="accuracy",
        files=_TSV,
        folders=("SST-2", "sst2", "SST"),
        labels=_BINARY,
        leaderboard=_board("SST-2"),
        tfds="glue/sst2",
    ),
    Task(
        name="mrpc",
        kind="classify",
        layout=Table(
            ("#1 String", "sentence1"),
            ("#2 String", "sentence2"),
            ("Quality", "label"),
            _ID,
            rename={"not_equivalent": "0", "equivalent": "1"},
        ),
        metrics=("f1", "accuracy"),
        main_metric="accuracy",
        files={
            "train": ("train.tsv", "msr_paraphrase_train.txt"),
            "dev": ("dev.tsv",),
            "test": ("test.tsv", "msr_paraphrase_test.txt"),
        },
        folders=("MRPC", "mrpc"),
        labels=_BINARY,
        positive="1",
        unordered=True,
        leaderboard=_board("MRPC"),
        tfds="glue/mrpc",
    ),
    Task(
        name="stsb",
        kind="regress",
        numbers=True,
        layout=Table(("sentence1",), ("sentence2",), ("score", "label"), _ID),
        metrics=("pearson", "spearman", "corr"),
        main_metric="spearman",
        files=_TSV,
        folders=("STS-B", "stsb", "STS"),
        score_range=(0, 5),
        epochs=10,
        unordered=True,
        leaderboard=_board("STS-B"),
        tfds="glue/stsb",
    ),
    Task(
        name="qqp",
        kind="classify",
        layout=Table(
            ("question1",),
            ("question2",),
            ("is_duplicate", "label"),
            _ID,
            rename={"not_duplicate": "0", "duplicate": "1"},
            lenient=True,
        ),
        metrics=("f1", "accuracy"),
        main_metric="accuracy",
        files=_TSV,
        folders=("QQP", "qqp"),
        labels=_BINARY,
        positive="1",
        leaderboard=_board("QQP"),
        tfds="glue/qqp",
    ),
    Task(
        name="mnli",
        kind="classify",
        layout=Table(
            ("sentence1", "premise"),
            ("sentence2", "hypothesis"),
            ("gold_label", "label"),
            _ID,
            rename=_INFERENCE_NUMBERS,
        ),
        metrics=("accuracy",),
        main_metric="accuracy",
        files={
            "train": ("train.tsv",),
            "dev": ("dev_matched.tsv",),
            "dev_mismatched": ("dev_mismatched.tsv",),
            "test": ("test_matched.tsv",),
            "test_mismatched": ("test_mismatched.tsv",),
            "diagnostic": ("diagnostic/diagnostic.tsv", "AX/AX.tsv", "diagnostic.tsv"),
        },
        folders=("MNLI", "mnli"),
        labels=INFERENCE,
        leaderboard=Leaderboard(
            {"test": "MNLI-m.tsv", "test_mismatched": "MNLI-mm.tsv", "diagnostic": "AX.tsv"}
        ),
        tfds="glue/mnli",
        tfds_splits={
            "dev": "validation_matched",
            "dev_mismatched": "validation_mismatched",
            "test": "test_matched",
            "test_mismatched": "test_mismatched",
        },
    ),
    Task(
        name="qnli",
        kind="classify",
        layout=Table(("question",), ("sentence",), id=_ID, rename=_ENTAILED_NUMBERS),
        metrics=("accuracy",),
        main_metric="accuracy",
        files=_TSV,
        folders=("QNLI", "qnli"),
        labels=_ENTAILED,
        leaderboard=_board("QNLI"),
        tfds="glue/qnli",
    ),
    Task(
        name="rte",
        kind="classify",
        layout=Table(("sentence1",), ("sentence2",), id=_ID, rename=_ENTAILED_NUMBERS),
        metrics=("accuracy",),
        main_metric="accuracy",
        files=_TSV,
        folders=("RTE", "rte"),
        labels=_ENTAILED,
        epochs=10,
        leaderboard=_board("RTE"),
        tfds="glue/rte",
    ),
    Task(
        name="wnli",
        kind="classify",
        layout=Table(
            ("sentence1",),
            ("sentence2",),
            id=_ID,
            rename={"not_entailment": "0", "entailment": "1"},
        ),
        metrics=("accuracy",),
        main_metric="accuracy",
        files=_TSV,
        folders=("WNLI", "wnli"),
        labels=_BINARY,
        leaderboard=_board("WNLI"),
        tfds="glue/wnli",
    ),
    Task(
        name="ax",
        kind="classify",
        layout=Table(("sentence1", "premise"), ("sentence2", "hypothesis"), id=_ID),
        metrics=("mcc", "accuracy"),
        main_metric="mcc",
        files={"test": ("diagnostic.tsv", "AX.tsv")},
        folders=("diagnostic", "AX", "ax"),
        labels=INFERENCE,
        leaderboard=_board("AX"),
        tfds="glue/ax",
    ),
)
