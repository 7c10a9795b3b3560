"""The recipes as the command line shows them."""

import pytest

from electra_jax import cli
from electra_jax.cli import recipes
from electra_jax.spec import shipped_configs


def test_every_recipe_has_a_line(capsys):
    """Catches a recipe that nobody finds, and one of another command among them."""
    assert cli.main(["pretrain", "--list"]) == 0
    shown = {line.split()[0] for line in recipes.listed("pretrain").splitlines()}
    assert shown == set(shipped_configs()) - {"finetune"}
    assert recipes.listed("pretrain") in capsys.readouterr().out


@pytest.mark.parametrize("name", [["--config"], ["--config", "smal"]])
def test_no_or_an_unknown_name_lists_them(name, capsys):
    """Catches a user who has to look for the names elsewhere."""
    assert cli.main(["pretrain", "--workdir", "run", *name]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and recipes.listed("pretrain") in error
    assert "smal" not in name or "Did you mean 'small'?" in error


def test_the_keys_of_a_recipe(capsys):
    """Catches a list without the user's own values, or that asks for a workdir."""
    given = ["--config.train.steps=7", "--config.report.wandb=mine"]
    assert cli.main(["pretrain", "--config", "small", "--list", *given]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    assert rows["train.steps"][:5] == ["int", "7", "steps", "of", "the"]
    assert rows["report.tensorboard"][:2] == ["bool", "true"]
    assert rows["report.wandb"][:2] == ["str", "mine"]


def test_a_workdir_is_asked_for(capsys):
    """Catches a traceback now that --list needs no workdir."""
    assert cli.main(["pretrain", "--config", "tiny"]) == 2
    assert capsys.readouterr().err.startswith("error: no --workdir")
