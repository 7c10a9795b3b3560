"""The commands on a card: typed again they give the same config and the same rows."""

import json
import shlex
from typing import Any

import pytest

from electra_jax.cli import flags
from electra_jax.convert import made_by
from electra_jax.pretrain.options import complete
from electra_jax.spec import load_config
from electra_jax.workdir import changes


@pytest.mark.parametrize(
    ("recipe", "overrides", "said"),
    [
        ("small", [], 0),
        ("base", ["train.steps=7", "optim.peak_lr=1e-05", "objective.whole_word=true"], 3),
        ("tiny", ["objective.mask_split=(0.8,0.1,0.1)", "model.tying=all"], 2),
        ("tiny", ["train.phases=[{'steps': 20, 'path': 'mine/data512'}]"], 1),
        ("small", ["train.log_every=3", "report.wandb=my project", "data.path=/home/me/data"], 0),
    ],
)
def test_pretrain_gives_the_config_again(recipe: str, overrides: list[str], said: int):
    """Catches a command that is not the one that made the model, and one that tells whose folders they were."""
    config: Any = json.loads(json.dumps(load_config(recipe, overrides).to_dict()))
    command = made_by.pretrain(config, "run")
    assert "mine" not in command and "/home" not in command and "my project" not in command
    options = flags.parse(shlex.split(command)[1:])
    assert options.config == recipe and len(options.overrides) == said + 1
    again = load_config(options.config, options.overrides).to_dict()
    wanted = changes.flat(complete(config))
    for name, value in changes.flat(json.loads(json.dumps(again))).items():
        if not name.startswith((*changes.FREE, "train.phases")):
            assert wanted[name] == value, name


def test_prepare_names_what_was_asked_for():
    """Catches options that are left out, usual ones that are said, and folders of the maker."""
    info = {
        "inputs": [{"name": "/a/b.txt.gz"}, {"name": "c d.txt"}],
        "valid_inputs": [],
        "seq_len": 128,
        "options": {"segments": "full", "overflow": "carry", "seed": 3, "dedup": None, "pack": True}
        | {"valid_fraction": 0.01, "text_key": "text", "segmenter": None},
    }
    command = made_by.prepare(info)
    assert command == (
        "electra-jax prepare --input b.txt.gz 'c d.txt' --tokenizer tok --seq-len 128 --segments full --seed 3 --pack "
        "--output data"
    )
    flags.parse(shlex.split(command)[1:])
    none = info | {"options": info["options"] | {"valid_fraction": 0, "pack": False}}
    assert "--valid-fraction 0" in made_by.prepare(none) and "--pack" not in made_by.prepare(none)
    assert "--valid-input v.txt" in made_by.prepare(info | {"valid_inputs": [{"name": "v.txt"}]})


def test_changes_between_starts_are_said():
    """Catches a card of a run that was resumed with another rate and does not say so."""
    rows = [
        {"step": 5, "field": "train.steps", "was": 10, "now": 20},
        {"step": 5, "field": "data.path", "was": "/a", "now": "/b"},
    ]
    assert made_by.changed(rows) == ["# from step 5: train.steps was 10, now 20"]
