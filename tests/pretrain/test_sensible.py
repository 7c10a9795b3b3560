"""What options can mean: a range for every number, warmup and run that fit, and runs of before that go on."""

import dataclasses
import json
import typing

import pytest

from electra_jax.objective import registry, sentence
from electra_jax.pretrain import loop, options, sensible
from electra_jax.pretrain import start as starts
from electra_jax.spec import UserError
from electra_jax.workdir.record import RECORD


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optim.beta1=1", "optim.beta1=1.0 is out of range; expected at least 0 and below 1"),
        ("optim.eps=0", "optim.eps=0.0 is out of range; expected above 0 and at most 1"),
        ("optim.lr_power=-1", "optim.lr_power=-1.0 is out of range"),
        (
            "objective.generator_weight=-1",
            "generator_weight=-1.0 is out of range; expected at least 0",
        ),
        ("train.keep_every=-5", "train.keep_every=-5 is out of range"),
        ("train.eval_batches=-1", "train.eval_batches=-1 is out of range"),
        ("train.seed=12345678901234567890", "train.seed=12345678901234567890 is out of range"),
        ("train.steps=1e12", "train.steps=1000000000000 is out of range"),
        ("model.layers=1e6", "model.layers=1000000 must be at most 1,000"),
        ("train.stop_at=21", "train.stop_at=21 is beyond the last step, train.steps=20"),
        (
            "train.phases=({'steps': 20, 'warmup': 21, 'peak_lr': 1e-3},)",
            "phases[0].warmup=21 is longer",
        ),
        ("train.phases=({'steps': 20, 'peak_lr': 9.0},)", "phases[0].peak_lr=9.0 is out of range"),
    ],
)
def test_what_cannot_be_meant_is_refused(config, tmp_path, override, said):
    """Catches a value that trains nothing, or ends in a traceback, and is accepted."""
    with pytest.raises(UserError) as error:
        starts.open_run(config(override), tmp_path / "run")
    assert said in str(error.value)


def test_a_next_sentence_needs_another_row(config, tmp_path):
    """Catches a sentence objective that asks nothing from the first step to the last."""
    with pytest.raises(UserError, match="train.batch=1 has none"):
        starts.open_run(config("train.batch=1"), tmp_path / "run", ["objective.sentence=next"])


def test_all_mistakes_are_named_at_once(config, tmp_path):
    """Catches a user who has to start once for each mistake."""
    with pytest.raises(UserError, match=r"generator_weight.*beta1.*keep_every"):
        starts.open_run(
            config("optim.beta1=1", "train.keep_every=-1", "objective.generator_weight=-1"),
            tmp_path,
        )
    both = ("objective.generator_weight=0", "objective.discriminator_weight=0")
    with pytest.raises(UserError, match="both 0: nothing would be learned"):
        starts.open_run(config(*both), tmp_path)


def test_every_number_has_a_range():
    """Catches a new option that nobody gave a range: add it to RANGES."""
    specs = [*options.SPECS.items(), ("train.phases", options.PhaseSpec)]
    specs += [("objective", registry.options_of(name)) for name in registry.KNOWN]
    specs += [("objective", sentence.Options)]
    numbers = {
        f"{section}.{field.name}"
        for section, spec in specs
        for field in dataclasses.fields(spec)
        if typing.get_type_hints(spec)[field.name] in (int, float, tuple[float, float, float])
    }
    assert numbers == set(sensible.RANGES) | set(registry.ranges())


def test_a_run_shortened_by_the_user_gets_a_warmup_of_the_same_share(config, tmp_path, capsys):
    """Catches a run that never comes near its learning rate, or a warmup changed behind the user's back."""
    recipe = config("train.steps=1000", "optim.warmup=100")
    start = starts.open_run(recipe, tmp_path / "a", ["train.steps=50"])
    assert start.run.optim.warmup == 5 == start.config["optim"]["warmup"]
    assert "optim.warmup is 5, the same share of the run" in start.note
    enough = starts.open_run(recipe, tmp_path / "a", ["train.steps=100"])
    assert (enough.run.optim.warmup, enough.note) == (100, None)
    own = starts.open_run(recipe, tmp_path / "a", ["train.steps=50", "optim.warmup=20"])
    assert (own.run.optim.warmup, own.note) == (20, None)
    for wrong in (["train.steps=50", "optim.warmup=51"], ["optim.warmup=1001"]):
        with pytest.raises(
            UserError, match=r"is longer than train\.steps.*choose a warmup of at most"
        ):
            starts.open_run(recipe, tmp_path / "a", wrong)
    with pytest.raises(UserError, match="is longer than"):  # the file's own mistake
        starts.open_run(config("train.steps=50", "optim.warmup=51"), tmp_path / "a")


def test_a_run_begun_before_goes_on_unchanged(config, tmp_path):
    """Catches a workdir that cannot be resumed, or goes on under another schedule, because of a later rule."""
    recipe = config("train.steps=1000", "optim.warmup=100")
    short = ["train.steps=50"]
    start = starts.open_run(recipe, tmp_path, short)
    starts.begin(start)
    assert starts.open_run(recipe, tmp_path, short).changes == ()  # the same command again
    record = json.loads((tmp_path / RECORD).read_text())
    record["config"]["optim"] |= {"warmup": 100, "beta1": 1.0}
    record["config"]["train"]["stop_at"] = 60
    (tmp_path / RECORD).write_text(json.dumps(record))
    alone = starts.open_run(None, tmp_path)
    assert (alone.run.optim.warmup, alone.run.optim.beta1, alone.changes) == (100, 1.0, ())
    again = starts.open_run(recipe, tmp_path, [*short, "optim.beta1=1.0", "train.stop_at=60"])
    assert (again.run.optim.warmup, again.note) == (100, None)
    with pytest.raises(UserError, match="train.keep_every=-1 is out of range"):
        starts.open_run(None, tmp_path, ["train.keep_every=-1"])


def test_segments_need_types(config, prepared, tmp_path):
    """Catches pairs of segments for which the model has one type: their embeddings are no numbers."""
    run = options.run_spec(config("model.types=1").to_dict())
    with pytest.raises(UserError, match=r"rows of two segments, but model\.types=1"):
        options.check(run, run.phases(prepared)[0], 1)


def test_a_workdir_that_is_a_file(config, tmp_path):
    """Catches a traceback from the lock, or one after a minute of compiling."""
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match="file is a file; name a folder"):
            loop.pretrain(config(), folder)


def test_a_config_of_things_that_are_no_json(config, tmp_path):
    """Catches a traceback for numpy's numbers in a config file."""
    import numpy as np

    made = config().to_dict()
    made["train"]["steps"] = np.int64(20)
    with pytest.raises(UserError, match="JSON has no word for"):
        starts.open_run(made, tmp_path)
