"""Kinds and tasks of a user's own: the page's example as a user would run it, and what is wrong with a file."""

import importlib.util
import json
import random
import re
import shutil
import sys
from pathlib import Path

import pytest

from electra_jax import cli
from electra_jax.finetune import own
from electra_jax.finetune.kinds import table
from electra_jax.spec import UserError
from electra_jax.tasks.task import Task

pytestmark = pytest.mark.usefixtures("cheap")
GROUPS = {"colour": "red blue green", "animal": "cat dog cow", "place": "home town lake"}
SMALL = (
    *("model.layers=1", "model.width=16", "model.heads=2", "model.ffn=32", "model.embedding=16"),
    *("model.positions=16", "model.init_std=0.3", "model.dropout=0.0", "head.dropout=0.0"),
    *("optim.peak_lr=2e-2", "optim.layer_decay=1.0", "train.batch=16", "train.buckets=1"),
    *("train.together=no", "eval.batch=16", "data.max_len=12"),
)


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kinds as the package has them afterwards."""
    monkeypatch.setattr(table, "KINDS", dict(table.KINDS))


@pytest.fixture(scope="module")
def code(root: Path) -> dict[str, str]:
    """The page's blocks of Python, by the file's name above each."""
    page = (root / "docs" / "extending.md").read_text()
    blocks = re.findall(r"<!-- (\w+\.py) -->\n```python\n(.*?)```", page, re.DOTALL)
    return dict(blocks)


@pytest.fixture
def home(tmp_path: Path, code: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the page's file, a vocabulary and data: the class is the group of the word with <1>."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mytask.py").write_text(code["token_pairs.py"] + "\n\n" + code["mytask.py"])
    words = " ".join(GROUPS.values()).split()
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (tmp_path / "vocab.txt").write_text("\n".join(vocab) + "\n")
    (tmp_path / "data").mkdir()
    draw = random.Random(0)
    for name, count in (("train", 80), ("dev", 40)):
        lines = []
        for _ in range(count):
            text = draw.choices(words, k=6)
            first, second = draw.sample(range(6), 2)
            label = next(g for g, each in GROUPS.items() if text[first] in each)
            text[first], text[second] = f"<1>{text[first]}", f"<2>{text[second]}"
            lines.append(f"{' '.join(text)}\t{label}\n")
        (tmp_path / "data" / f"{name}.txt").write_text("".join(lines))
    return tmp_path


def finetune(*flags: str) -> int:
    start = ("--init=random", "--tokenizer=vocab.txt", "--data-dir=data")
    return cli.main(["finetune", *start, *(f"--config.{x}" for x in SMALL), *flags])


def test_the_page_as_a_user_runs_it(home, capsys):
    """Catches a page that lies, a head that doesn't see the marked words, a workdir that dies with the file."""
    assert finetune("--config=mytask.py", "--workdir=ft") == 0
    results = json.loads((home / "ft" / "results.json").read_text())
    assert results["steps"] == 20  # four epochs, as its get_config says
    assert results["runs"][0]["score"] > 70  # a third by chance
    predicted = "ft/runs/seed0/predictions/dev.tsv"
    capsys.readouterr()
    score = ["score", "--task=mytask.py", "--references=data/dev.txt"]
    assert cli.main([*score, f"--predictions={predicted}"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == results["runs"][0]["score"]
    (home / "mytask.py").unlink()
    (home / "new.txt").write_text("<1>cat red <2>blue\n<2>lake <1>red home\n")
    assert cli.main(["predict", "--workdir=ft", "--input=new.txt", "--output=p.tsv"]) == 0
    assert (home / "p.tsv").read_text().count("\n") == 3
    shutil.rmtree(home / "ft" / "runs")
    assert cli.main(["finetune", "--workdir=ft"]) == 0  # goes on by its copy
    again = json.loads((home / "ft" / "results.json").read_text())
    assert again["runs"][0]["scores"] == results["runs"][0]["scores"]
    capsys.readouterr()
    assert cli.main(["export", "--workdir=ft", "--output=hf"]) == 2
    assert "transformers has no class" in capsys.readouterr().err


def test_a_kind_is_one_file_and_one_line(code, tmp_path, monkeypatch):
    """Catches a second place that a new kind has to be written into."""
    name = "electra_jax.finetune.kinds.token_pairs"
    (tmp_path / "token_pairs.py").write_text(code["token_pairs.py"])
    described = importlib.util.spec_from_file_location(name, tmp_path / "token_pairs.py")
    assert described is not None and described.loader is not None
    module = importlib.util.module_from_spec(described)
    monkeypatch.setitem(sys.modules, name, module)
    described.loader.exec_module(module)
    source = Path(table.__file__).read_text()
    edited = source.replace('    "choice",\n', '    "choice",\n    "token_pairs",\n')
    assert edited.count("\n") == source.count("\n") + 1
    there: dict = {}
    exec(compile(edited, "table.py", "exec"), there)
    kind = there["get"]("token-pairs")
    assert type(kind).__name__ == "TokenPairs" and "token-pairs" in there["SHIPPED"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("task = Task(", "other = Task("), "task: expected a Task .*; found nothing of this name"),
        (("task = Task(", "task = dict("), "task: expected a Task .*; found {"),
        (('name="relations"', 'name="no/name"'), "task.name: expected letters, .* found 'no/name'"),
        (("kind = TokenPairs()", "kind = TokenPairs"), "kind: expected an object of a subclass"),
        (('"token-pairs"', '"classify"'), "kind.name: expected a name other than classify, "),
        (("kind=kind.name", 'kind="pairs"'), "task.kind: expected one of .* found 'pairs'"),
        (("class PairHead", "1 / 0\n\n\nclass PairHead"), "line 3.: ZeroDivisionError"),
    ],
)
def test_a_file_that_is_no_task(home, change, said):
    """Catches a traceback, or an error without file and member."""
    text = (home / "mytask.py").read_text()
    assert change[0] in text
    (home / "mytask.py").write_text(text.replace(*change))
    with pytest.raises(UserError, match=f"^task file mytask.py.*{said}") as error:
        own.load("mytask.py")
    assert "\n" not in str(error.value)


BAD_HEAD = '        return {"logits": 0 * hidden_BxLxD[0, 0, 0], "x": dense'
BAD_LOSS = (
    "    def loss(self, spec, out, batch):\n        return out['logits'][:, 0]\n\n    def head(self"
)

BAD_PREDICTIONS = (
    "    def predictions(self, data, split, said):\n        return [1]\n\n    def head(self"
)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "np.array(numbers,",
            "np.array(numbers[1:],",
            "features: expected Features .*; found 79 entries of label for 80",
        ),
        ("return Features(", "return dict(", "features: expected Features .*found {"),
        ("tokenizer.encode_batch", "tokenizer.encoded", "features, .*AttributeError"),
        ('batch["pair"]', 'batch["pairs"]', "head, line .*KeyError"),
        ('        return {"logits": dense', BAD_HEAD, "head: expected outputs"),
        (
            "self.spec.outputs, ",
            "self.spec.outputs + 2, ",
            r"head: expected logits with 3 outputs.*found {'logits': float32\[4, 5\]}",
        ),
        ("    def head(self", BAD_LOSS, r"loss: expected the sum .*found float32\[4\]"),
        (
            "return found\n",
            "return [1]\n",
            "Marked.read: expected a list of examples.*found int without id",
        ),
        ("return found\n", "return None\n", "Marked.read.*TypeError"),
        ('"accuracy", "macro_f1"', '"accuracy", "f2"', "unknown metric 'f2'. Did you mean 'f1'"),
        (
            'main_metric="accuracy"',
            'main_metric="f1"',
            "task.main_metric: expected one of the scores accuracy, mac",
        ),
        (
            "    def head(self",
            BAD_PREDICTIONS,
            "predictions: expected a list with one .*found 1 for 4 examples",
        ),
    ],
)
def test_members_that_are_wrong(home, capsys, old, new, said):
    """Catches minutes of compiling before an error, and one that doesn't name file, member, expected and found."""
    text = (home / "mytask.py").read_text()
    assert old in text
    (home / "mytask.py").write_text(text.replace(old, new))
    assert finetune("--config=mytask.py", "--workdir=ft") == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert re.search(f"task file mytask.py.*({said})", line), line
    assert not (home / "ft").exists()


def test_a_changed_file_is_told(home, capsys):
    """Catches a run that goes on with another head than it began with."""
    (home / "ft" / own.FOLDER).mkdir(parents=True)
    shutil.copy("mytask.py", own.kept("ft", "relations"))
    assert own.as_kept("ft", ("mytask.py", "sst2"), ("relations", "sst2")) == (
        str(own.kept("ft", "relations")),
        "sst2",
    )
    assert capsys.readouterr().err == ""
    (home / "mytask.py").write_text("# changed\n")
    own.as_kept("ft", ("mytask.py",), ("relations",))
    assert "mytask.py has changed since" in capsys.readouterr().err


def test_a_task_beside_the_usual_recipe(home, code):
    """Catches a file of a task alone that is refused for want of get_config, and finetune:FILE taken for a path."""
    from electra_jax.finetune import options

    assert tuple(options.recipe("finetune:mytask.py", ()).tasks) == ("mytask.py",)
    assert tuple(options.recipe("finetune:sst2,mytask.py", ()).tasks) == ("sst2", "mytask.py")
    config = options.recipe("mytask.py", ["train.batch=8"])
    assert (config.train.epochs, config.train.batch, config.tasks) == (4.0, 8, ("mytask.py",))
    text = (home / "mytask.py").read_text()
    (home / "mytask.py").write_text(text.partition("def get_config")[0])
    config = options.recipe("mytask.py", ())
    assert (config.train.epochs, config.tasks) == (None, ("mytask.py",))
    assert isinstance(own.load("mytask.py"), Task)


def test_the_card_names_the_file_alone(home):
    """Catches a model card that tells where on its maker's machine a file lay."""
    from electra_jax.finetune import export, options

    config = options.recipe(str(home / "mytask.py"), ["init=run/", "train.batch=8"]).to_dict()
    told = export._command(config)
    assert "--config finetune:mytask.py" in told and "train.batch=8" in told
    assert str(home) not in told
