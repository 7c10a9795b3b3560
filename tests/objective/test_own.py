"""A user's own objective: what is wrong with its file is told in one line, before anything is compiled."""

import re
from pathlib import Path

import pytest

from electra_jax.model.electra import ModelSpec
from electra_jax.objective import registry
from electra_jax.spec import UserError, load_config
from electra_jax.text.special import SpecialIds

RIGHT = "return total / context.totals"


@pytest.fixture
def mine(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example of docs/extending.md, in the folder that is current."""
    page = (root / "docs" / "extending.md").read_text()
    found = re.search(r"<!-- mine\.py -->\n```python\n(.*?)```", page, re.DOTALL)
    assert found is not None
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.py"
    path.write_text(found[1])
    return path


def make(**options):
    model = load_config("tiny").model.to_dict()
    section = load_config("tiny").objective.to_dict() | {"name": "mine.py"} | options
    special = SpecialIds(0, 1, 2, 3, 4)
    return registry.make(section, ModelSpec(**model), 40, special, 16)


def test_the_example_is_an_objective(mine):
    """Catches a check that refuses what is right, and options of the user's that are not his to set."""
    assert make(share=0.3).options.share == 0.3
    assert [export.name for export in make().exports()] == ["encoder"]
    assert "objective.share" in registry.ranges("mine.py")
    shared = {"sentence": "", "sentence_weight": 1.0}  # options of every objective
    assert registry.completed({"name": "mine.py"}) == shared | {"share": 0.15, "name": "mine.py"}
    with pytest.raises(UserError, match="Did you mean 'objective.share'"):
        make(shrae=0.3)


@pytest.mark.parametrize(
    ("was", "now", "told"),
    [
        ("make = Exchanged", "", "make: expected a function make.*; the file has .*Exchanged"),
        ("def init", "def begin", "init: expected .*parameters.*; found none in Exchanged"),
        ("make = Exchanged", "make = (", r"mine.py, line \d+: SyntaxError"),
        ("import flax.linen as nn", "import flacks", "line 5: ModuleNotFoundError"),
        (
            "make = Exchanged",
            "make = 3",
            "make: TypeError: 'int' object is not callable; expected a",
        ),
        ("@dataclass(frozen=True)\n", "", "Options: expected a frozen dataclass; found"),
        ("], sums", "], sums['x']", r"loss, line \d+: KeyError: 'x'; expected \(context\) -> "),
        ("return total /", "return logit_BxL /", r"found \(float32\[2, 16\], \{"),
        ("], sums", "]", r"loss: expected .*; found float32\[\]"),
        ('"accuracy": right', '"accuracy": logit_BxL', r"'accuracy' of shape \[2, 16\] for 2 rows"),
        ('return batch | {"fake"', 'return {"fake"', "prepare: expected .* the batch with all it"),
        ('"fake": jnp.where', '"fake": jnp.sum', "prepare, line"),
        ("(logit_BxL, fake_BxL)", "(logit_BxL, fake_BxL[:, 1:])", r"loss, line \d+: .*shape"),
        (
            "make = Exchanged",
            "Exchanged.flops = lambda self, length: -1\nmake = Exchanged",
            "found -1",
        ),
        ('"loss {:.4f}"', '"loss {:.4q}"', "shown: expected a list of Metrics"),
        ("Range(0, 1, above=True, below=True)", "(0, 1)", "RANGES: expected a dict"),
        ("share: float = 0.15", "__post_init__ = 3  #", "Options: TypeError.*not callable"),
        (
            "make = Exchanged",
            "Exchanged.metrics = lambda self, sums: sums\nmake = Exchanged",
            "metrics: expected .* a dict of floats",
        ),
        (
            "make = Exchanged",
            "Exchanged.carry = lambda self, context, params, sums: params\nmake = Exchanged",
            "carry: expected the tree of `carried`",
        ),
        (
            "make = Exchanged",
            "Exchanged.parts = lambda self, whole: []\nmake = Exchanged",
            "parts: expected .* a list of Parts",
        ),
        (
            "def init(self, key):",
            "def init(self, key):\n        return {'head': {'gain': jnp.ones(3)}}",
            "init: expected one whose last name is kernel.*; found a parameter head/gain",
        ),
    ],
)
def test_what_is_wrong_is_told_before_compilation(mine, was, now, told):
    """Catches a traceback, or minutes of compiling, in place of file, member, expected and found."""
    text = mine.read_text()
    assert was in text
    mine.write_text(text.replace(was, now))
    with pytest.raises(UserError, match=told) as error:
        make()
    assert str(error.value).startswith("objective file mine.py")
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(mine):
    """Catches a name that is looked up among the known ones, and a traceback."""
    mine.unlink()
    with pytest.raises(UserError, match=r"mine\.py does not exist \(looked in "):
        make()


def test_a_changed_file_is_run_again(mine):
    """Catches a process that goes on with what the file said first."""
    assert make().options.share == 0.15
    mine.write_text(mine.read_text().replace("share: float = 0.15", "share: float = 0.5"))
    assert make().options.share == 0.5
