"""A workdir belongs to one run: what may change between starts, and what is refused."""

import json
from pathlib import Path

import pytest

from electra_jax.learn.checkpoint import Checkpoints
from electra_jax.pretrain import start as starts
from electra_jax.pretrain.options import complete, run_spec
from electra_jax.spec import UserError
from electra_jax.workdir import imported
from electra_jax.workdir.record import RECORD, read_record


@pytest.fixture
def begun(config, tmp_path) -> Path:
    """A workdir whose run has begun."""
    folder = tmp_path / "run"
    starts.begin(starts.open_run(config(), folder))
    return folder


def test_opening_writes_nothing(config, tmp_path):
    """Catches a refused start that leaves a folder behind."""
    start = starts.open_run(config(), tmp_path / "run")
    assert not start.resumed
    assert not (tmp_path / "run").exists()


def test_the_record(begun, config, prepared):
    """Catches a record that lacks what a resume compares, or a tokenizer that is not the data's."""
    record = read_record(begun)
    assert record["config"] == json.loads(json.dumps(complete(config().to_dict())))
    assert record["data"]["fingerprint"] == prepared.fingerprint
    assert record["data"]["rows"] == prepared.rows
    assert {"jax", "numpy", "electra_jax", "python"} <= set(record["versions"])
    ours, theirs = begun / "tokenizer", prepared.path / "tokenizer"
    names = {p.name for p in theirs.iterdir()}
    assert {p.name for p in ours.iterdir()} == names
    assert all((ours / name).read_bytes() == (theirs / name).read_bytes() for name in names)


def test_resuming_with_and_without_the_config(begun, config):
    """Catches tuples that come back from JSON as lists and so differ, and a config that is needed
    again although the workdir has it."""
    for again in (None, config()):
        start = starts.open_run(again, begun)
        assert start.resumed
        assert start.run.train == run_spec(config().to_dict()).train
        assert start.run.objective["mask_split"] == [0.85, 0.15, 0.0]


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("optim.peak_lr=0.5", "optim.peak_lr: was 0.001, now 0.5"),
        ("train.steps=21", "train.steps: was 20, now 21"),
        ("train.seed=1", "train.seed: was 0, now 1"),
        ("train.batch=16", "train.batch: was 8, now 16"),
        ("model.dropout=0.2", "model.dropout: was 0.1, now 0.2"),
        ("objective.mask_split=(0.8,0.1,0.1)", "objective.mask_split: was [0.85, 0.15, 0.0], now"),
        ("train.eval_every=3", "train.eval_every: was 10, now 3"),
    ],
)
def test_another_config_is_refused_by_name(begun, config, override: str, named: str):
    """Catches a run that goes on with other settings than it began with: given as a config, and as
    an override without one."""
    for given in ((config(override), begun), (None, begun, [override])):
        with pytest.raises(UserError) as error:
            starts.open_run(*given)
        assert named in str(error.value)
        assert "choose another --workdir" in str(error.value)


@pytest.mark.parametrize(
    "override",
    [
        "train.log_every=1",
        "train.checkpoint_every=2",
        "train.keep_last=1",
        "train.keep_every=10",
        "train.accumulation=2",
        "train.stop_at=5",
        "mesh.deterministic=true",
        "mesh.fsdp=2",
        "report.tensorboard=true",
    ],
)
def test_what_changes_no_number_may_change(begun, config, override: str):
    """Catches a resume on another machine that is refused, or whose new settings are dropped."""
    section, _, key = override.partition("=")[0].partition(".")
    for start in (
        starts.open_run(config(override), begun),
        starts.open_run(None, begun, [override]),
    ):
        assert start.resumed
        assert start.config[section][key] != config()[section][key]
    starts.begin(start)
    kept = read_record(begun)["config"]
    assert kept[section][key] == start.config[section][key]


def test_allowed_changes_are_kept_with_their_step(begun, config):
    """Catches a change that is allowed by too wide or too narrow a name, or that leaves no trace."""
    asked = ["optim.peak_lr=0.5", "train.steps=40"]
    for allowed in ([], ["train"], ["optim"], ["optim.peak_lr", "train.step"], ["optim.peak"]):
        with pytest.raises(UserError):
            starts.open_run(None, begun, asked, allowed)
    start = starts.open_run(None, begun, asked, ["optim", "train.steps"])
    starts.begin(start, step=7)
    starts.begin(starts.open_run(None, begun, ["train.log_every=1"]), step=9)
    record = read_record(begun)
    assert record["config"]["optim"]["peak_lr"] == 0.5
    assert record["changes"] == [
        {"step": 7, "field": "optim.peak_lr", "was": 0.001, "now": 0.5},
        {"step": 7, "field": "train.steps", "was": 20, "now": 40},
        {"step": 9, "field": "train.log_every", "was": 5, "now": 1},
    ]


def test_refusals_say_how_to_allow(begun):
    """Catches a message that leaves its reader without the flag, and a field that nothing has."""
    with pytest.raises(UserError, match="go on with the change by --allow-change train.steps$"):
        starts.open_run(None, begun, ["train.steps=40"])
    with pytest.raises(UserError, match=r"field of --allow-change 'train.step'. Did you mean"):
        starts.open_run(None, begun, [], ["train.step"])


def test_a_record_from_before_an_option(begun):
    """Catches a run that a newer version cannot resume because its record lacks a key with a default."""
    path = begun / RECORD
    record = json.loads(path.read_text())
    del record["config"]["train"]["stop_at"], record["config"]["mesh"]["deterministic"]
    del record["config"]["objective"]["discriminator_rate"]
    path.write_text(json.dumps(record))
    start = starts.open_run(None, begun, ["train.stop_at=3"])
    assert start.run.train.ends_at == 3
    assert start.run.objective["discriminator_rate"] == 1.0


def test_a_mistyped_override_of_a_resume(begun):
    """Catches an override that sets a key nobody reads."""
    with pytest.raises(UserError, match="Did you mean 'train.log_every'"):
        starts.open_run(None, begun, ["train.log_evry=1"])


def test_other_data_are_refused(begun, config):
    """Catches a run that goes on with rows it did not begin with, under the same path."""
    path = begun / RECORD
    record = json.loads(path.read_text())
    record["data"] |= {"fingerprint": "another", "rows": {"train": 5, "valid": 5}}
    path.write_text(json.dumps(record))
    for again in (None, config()):
        with pytest.raises(UserError, match="is not the data that the run") as error:
            starts.open_run(again, begun)
        assert "fingerprint: was 'another'" in str(error.value)
        assert "rows: was" in str(error.value)
    start = starts.open_run(None, begun, [], ["data"])
    assert {change.field for change in start.changes} == {"data.fingerprint", "data.rows"}
    record["data"]["tokenizer_hash"] = "another"
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match="tokenizer_hash: was 'another'"):
        starts.open_run(None, begun, [], ["data"])


def test_data_that_moved_are_accepted(begun, config, prepared_folder, tmp_path):
    """Catches a path compared instead of the content."""
    (tmp_path / "moved").symlink_to(prepared_folder)
    start = starts.open_run(None, begun, [f"data.path={tmp_path / 'moved'}"])
    assert start.resumed


def test_a_relative_path_is_kept_absolute(config, prepared_folder, tmp_path, monkeypatch):
    """Catches a resume from another folder that does not find its data."""
    monkeypatch.chdir(prepared_folder.parent)
    starts.begin(starts.open_run(config(data=prepared_folder.name), tmp_path / "run"))
    monkeypatch.chdir(tmp_path)
    start = starts.open_run(None, tmp_path / "run")
    assert start.data.path == prepared_folder.resolve()


def test_folders_that_are_no_run(config, tmp_path):
    """Catches checkpoints of another program taken over, and a resume of nothing."""
    with pytest.raises(UserError, match="holds no run to resume .*give --config to start one"):
        starts.open_run(None, tmp_path)
    with pytest.raises(UserError, match="no data: give --config.data.path=FOLDER"):
        starts.open_run(config(data=""), tmp_path)
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    with pytest.raises(UserError, match="has checkpoints but no config.json"):
        starts.open_run(config(), tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is not JSON"), ("[]", "holds a list"), ('{"format": "x"}', "format")],
)
def test_a_damaged_record(config, tmp_path, content: str, message: str):
    """Catches a damaged record that is overwritten by a new run."""
    (tmp_path / RECORD).write_text(content)
    with pytest.raises(UserError, match=message):
        starts.open_run(config(), tmp_path)
    with pytest.raises(UserError, match="it has no config.json"):
        read_record(tmp_path / "nowhere")


def test_conflicts_with_an_imported_model_are_all_listed(config, tmp_path, prepared):
    """Catches one conflict reported at a time, or an imported model trained in another shape."""
    other = run_spec(config("model.width=32", "model.layers=2").to_dict())
    dims = other.dimensions(prepared.vocab_size + 1)
    imported.write(tmp_path, dims, "electra", {}, {"from": "a test"})
    with pytest.raises(UserError) as error:
        starts.open_run(config("objective.name=mlm"), tmp_path)
    for part in (
        "model.width is 16, imported 32",
        "model.layers is 1, imported 2",
        "generator width (model.generator_size) is 8, imported 16",
        f"vocabulary size (of the data) is {prepared.vocab_size}",
        "objective.name is mlm, imported electra",
    ):
        assert part in str(error.value)
    with pytest.raises(UserError, match="it was imported"):
        starts.open_run(None, tmp_path)


def test_an_imported_tokenizer_that_is_not_the_datas(config, tmp_path, prepared):
    """Catches ids of another vocabulary of the same size."""
    dims = run_spec(config().to_dict()).dimensions(prepared.vocab_size)
    imported.write(tmp_path, dims, "electra", {}, {"from": "a test"})
    vocab = (prepared.path / "tokenizer" / "vocab.txt").read_text().split("\n")
    vocab[6], vocab[7] = vocab[7], vocab[6]
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "vocab.txt").write_text("\n".join(vocab))
    with pytest.raises(UserError, match="prepared with another tokenizer than the model imported"):
        starts.open_run(config(), tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (("data", "vocab_size"), "55", "data is damaged: vocab_size is '55'"),
        (("data", "rows"), {"train": -1}, "rows.'train'. is -1, expected a whole number"),
        (("data", "fingerprint"), None, "fingerprint is None, expected str"),
        (("config",), [], "config is a list of 0, expected dict"),
        (("changes",), [1], r"changes.0. is 1, expected dict"),
        (("config", "objective"), 3, "objective=3 is no section"),
        (("config", "model", "layers"), 10**6, "model.layers=1000000 must be at most 1,000"),
        (("config", "model", "generator_size"), 1e308, "generator_size=1e.308 must be above 0"),
    ],
)
def test_a_tampered_record_is_one_line(begun, field: tuple[str, ...], value, message: str):
    """Catches tracebacks for fields of the wrong type, and a model of a million layers that is begun."""
    path = begun / RECORD
    record = json.loads(path.read_text())
    part = record
    for name in field[:-1]:
        part = part[name]
    part[field[-1]] = value
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match=message) as error:
        starts.open_run(None, begun)
    assert "\n" not in str(error.value)


def with_checkpoint(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a checkpoint of step 5 had been saved under what the record says now."""
    meta = json.loads((begun / RECORD).read_text())
    monkeypatch.setattr(Checkpoints, "newest_meta", lambda self: (5, meta))


def edit(begun: Path, section: str, key: str, value: object) -> None:
    path = begun / RECORD
    record = json.loads(path.read_text())
    (record[section] if section == "data" else record["config"][section])[key] = value
    path.write_text(json.dumps(record))


def test_a_record_edited_by_hand(begun, monkeypatch):
    """Catches a run that goes on, or is exported, under values that somebody wrote into config.json since."""
    with_checkpoint(begun, monkeypatch)
    starts.open_run(None, begun)
    edit(begun, "train", "log_every", 3)  # changes nothing that is learned
    starts.open_run(None, begun)
    edit(begun, "optim", "peak_lr", 0.25)
    with pytest.raises(UserError, match=r"was edited.*step 5.*optim.peak_lr: was 0.001, now 0.25"):
        starts.open_run(None, begun)
    start = starts.open_run(None, begun, allow_change=["optim.peak_lr"])
    assert [str(c) for c in start.changes] == ["optim.peak_lr: was 0.001, now 0.25"]
    starts.begin(start, 5)
    assert (
        starts.open_run(None, begun).run.optim.peak_lr == 0.25
    )  # it stands in the list of changes
    edit(begun, "data", "fingerprint", "0" * 64)
    with pytest.raises(UserError, match=r"was edited.*data.fingerprint.*--allow-change data$"):
        starts.open_run(None, begun)


def test_a_change_that_was_allowed_is_no_edit(begun, monkeypatch):
    """Catches a resume refused because its last start changed a value before it saved."""
    with_checkpoint(begun, monkeypatch)
    starts.begin(starts.open_run(None, begun, ["train.steps=40"], ["train.steps"]), 5)
    assert starts.open_run(None, begun).run.train.steps == 40
