"""Exports: transformers loads every head with nothing missing, and says what we say."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from electra_jax import files, remote
from electra_jax.finetune import export, network, record, start
from electra_jax.finetune.heads import HeadSpec
from electra_jax.finetune.kinds import table as kinds
from electra_jax.finetune.network import NetworkSpec
from electra_jax.finetune.options import ModelOptions
from electra_jax.learn import arrays
from electra_jax.model.electra import Dimensions
from electra_jax.spec import UserError, to_dict
from electra_jax.text import tokenizer as tokenizers

ENCODER = ModelOptions(
    layers=2,
    width=16,
    heads=2,
    ffn=32,
    embedding=8,
    positions=24,
    types=2,
    init_std=0.5,
    dropout=0.1,
    attention_dropout=0.1,
    dtype="float32",
    residual_dtype="float32",
    remat="none",
)
VOCAB = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh")
LABELS = {"classify": ["no", "maybe", "yes"], "tag": ["O", "B-X", "I-X"]}
RANGE = (1.0, 5.0)


def randomly(spec: NetworkSpec) -> dict:
    """Parameters drawn with numpy, which takes no compilation; biases and norms are moved off 0 and 1."""
    draw = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: network.init(spec, jax.random.key(0)))
    return jax.tree.map(lambda s: 0.5 * draw.standard_normal(s.shape).astype(np.float32), shapes)


MODERN = {"family": "modern", "embedding": 16, "types": 1, "dropout": 0.0, "local_attention": 6}


def workdir(
    folder: Path, kind: str, style: str = "hf", family: str = "electra"
) -> tuple[NetworkSpec, dict]:
    """A fine-tuned workdir with random parameters; returns its network and parameters."""
    encoder = ENCODER if family == "electra" else dataclasses.replace(ENCODER, **MODERN)
    dims = Dimensions(encoder.random(), len(VOCAB))
    outputs = {"regress": 1, "choice": 1, "qa": 2}.get(kind, 3)
    head = HeadSpec(
        kind=kind,
        style=style,
        outputs=outputs,
        dropout=0.1,
        init_std=0.5,
        dtype="float32",
        family=family,
    )
    spec = NetworkSpec(dims=dims, heads=(("task", head),))
    params = randomly(spec)
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    tokenizers.load(folder / "vocab.txt").save(folder / "tokenizer")
    found = {
        "format": record.FORMAT,
        "config": {"init": "a/random", "tasks": ["task"], "data": {"train": "/home/me/train.tsv"}},
        "together": False,
        "fingerprint": {"task": "0"},
        "init": {"kind": "random"},
        "tasks": ["task"],
        "labels": {"task": LABELS.get(kind, [])},
        "score_range": {"task": RANGE if kind == "regress" else None},
        "max_len": {"task": 24},
        "heads": {"task": to_dict(head)},
        "examples": {"task": 10},
        "model": to_dict(dims.spec),
        "vocab_size": dims.vocab_size,
        "runs": [{"name": "seed0", "seed": 0, "peak_lr": 1e-3}],
        "steps": 3,
    }
    files.write_json(folder / record.RECORD, found)
    flat = {name: np.asarray(x) for name, x in arrays.flatten(params).items()}
    home = record.run_folder(folder, "seed0")
    record.write_params(home / record.PARAMS, flat)
    files.write_json(
        home / record.RESULT, {"name": "seed0", "score": 1.0, "scores": {}, "peak_lr": 1e-3}
    )
    return spec, params


def batch(choices: int = 0) -> dict[str, np.ndarray]:
    """Rows with padding and a second segment."""
    draw = np.random.default_rng(0)
    shape = (3, choices, 12) if choices else (3, 12)
    ids = draw.integers(5, len(VOCAB), shape).astype(np.int32)
    docs = np.ones(shape, np.int32)
    docs[1, ..., 9:] = 0
    types = np.broadcast_to(np.arange(12) >= 5, shape).astype(np.int32) * docs
    return {"ids": ids * docs, "types": types, "docs": docs}


@pytest.mark.torch
@pytest.mark.parametrize("family", ["electra", "modern"])
@pytest.mark.parametrize("kind", kinds.KINDS)
def test_transformers_loads_it_and_gives_the_same_logits(kind, family, tmp_path):
    """Catches a transposed kernel, a head under another name, a regression left in [0, 1]."""
    import torch
    import transformers

    spec, params = workdir(tmp_path / "ft", kind, family=family)
    written = export.export(tmp_path / "ft", tmp_path / "hf")
    assert written == kinds.get(kind).leaves_as(family)
    assert written.startswith("ModernBert" if family == "modern" else "Electra")
    auto = {
        "classify": transformers.AutoModelForSequenceClassification,
        "regress": transformers.AutoModelForSequenceClassification,
        "tag": transformers.AutoModelForTokenClassification,
        "qa": transformers.AutoModelForQuestionAnswering,
        "choice": transformers.AutoModelForMultipleChoice,
    }[kind]
    model, loading = auto.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    rows = batch(4 if kind == "choice" else 0)
    ours = network.apply(spec, params, "task", rows)
    given = {name: torch.tensor(x, dtype=torch.long) for name, x in rows.items()}
    with torch.no_grad():
        types = {"token_type_ids": given["types"]} if family == "electra" else {}
        said = model.eval()(input_ids=given["ids"], attention_mask=given["docs"], **types)
    if kind == "qa":
        pairs = [(ours["start"], said.start_logits), (ours["end"], said.end_logits)]
    elif kind == "regress":
        pairs = [(RANGE[0] + (RANGE[1] - RANGE[0]) * ours["logits"], said.logits)]
    else:
        pairs = [(ours["logits"], said.logits)]
    for mine, theirs in pairs:
        mine, theirs = np.asarray(mine), theirs.numpy()
        if kind in ("tag", "qa"):  # what stands at padding is nobody's
            mine, theirs = mine[rows["docs"] > 0], theirs[rows["docs"] > 0]
        assert np.abs(mine - theirs).max() <= 1e-5 * max(1.0, np.abs(theirs).max())
    if kind in LABELS:
        assert model.config.id2label == dict(enumerate(LABELS[kind]))
    if kind == "regress":
        assert model.config.problem_type == "regression" and model.config.num_labels == 1


@pytest.mark.parametrize("kind", ["classify", "tag", "qa"])
def test_a_head_on_a_modern_encoder_learns(kind, tmp_path):
    """Catches a head whose gradient cannot be taken, and a parameter that has none."""
    spec, params = workdir(tmp_path / "ft", kind, family="modern")
    rows = batch()

    def loss(params):
        outputs = network.apply(spec, params, "task", rows, training=True)
        return sum((x * (x > -100) ** 2).sum() for x in outputs.values())

    gradients = arrays.flatten(jax.jit(jax.grad(loss))(params))
    assert all(np.abs(x).max() > 0 for x in gradients.values()), gradients.keys()


def test_a_fine_tuned_workdir_is_a_beginning(tmp_path):
    """Catches intermediate training that begins with the old task's head, or with nothing of it."""
    _, params = workdir(tmp_path / "ft", "classify")
    found = start.read(str(tmp_path / "ft"), ENCODER)
    assert found.params is not None and found.origin["tasks"] == ["task"]
    kernel = params["encoder"]["layer_1"]["up"]["kernel"]
    assert np.array_equal(found.params["encoder/layer_1/up/kernel"], kernel)
    assert not any(name.startswith("heads_") for name in found.params)


@pytest.mark.parametrize(("kind", "family"), [("classify", "electra"), ("tag", "modern")])
def test_a_head_that_transformers_does_not_have_is_refused(kind, family, tmp_path):
    """Catches an export that loads and means something else."""
    workdir(tmp_path / "ft", kind, "original", family)
    with pytest.raises(UserError, match=f"transformers has no such head for {kind}"):
        export.export(tmp_path / "ft", tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_a_modern_encoder_is_a_beginning(tmp_path):
    """Catches dropouts of the other family that a recipe brings along, and one that is refused of an ELECTRA."""
    workdir(tmp_path / "ft", "classify", family="modern")
    asked = dataclasses.replace(ENCODER, mlp_dropout=0.2)
    found = start.read(str(tmp_path / "ft"), asked).dims.spec
    assert (found.family, found.dropout, found.attention_dropout) == ("modern", 0.0, 0.1)
    assert (found.mlp_dropout, found.local_attention) == (0.2, 6)
    workdir(tmp_path / "other", "classify")
    with pytest.raises(UserError, match=r"model.mlp_dropout=0.2: not options of model.family"):
        start.read(str(tmp_path / "other"), asked)


def test_the_folder_says_what_its_classes_are_called(tmp_path):
    """Catches predictions that come out as LABEL_0."""
    workdir(tmp_path / "ft", "tag")
    export.export(tmp_path / "ft", tmp_path / "hf")
    config = json.loads((tmp_path / "hf/config.json").read_text())
    assert config["label2id"] == {"O": 0, "B-X": 1, "I-X": 2}
    assert config["architectures"] == ["ElectraForTokenClassification"]
    assert {"tokenizer.json", "README.md", "model.safetensors"} <= {
        path.name for path in (tmp_path / "hf").iterdir()
    }


def test_the_card_has_the_command_and_what_the_maker_says(tmp_path):
    """Catches a card without the command that made the model, or with the maker's folders, language or license lost."""
    workdir(tmp_path / "ft", "classify")
    about = export.About.of("de", "apache-2.0")
    export.export(tmp_path / "ft", tmp_path / "hf", about=about)
    card = (tmp_path / "hf" / "README.md").read_text()
    assert "language:\n- de\nlicense: apache-2.0\n---" in card and "/home" not in card
    assert (
        "electra-jax finetune --config finetune:task --init random --workdir ft --config.data.train=train.tsv"
        in card
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": "13"}, "vocab_size is '13', expected a whole number"),
        ({"max_len": {"task": 10**9}}, "max_len.'task'. is 1000000000"),
        ({"labels": {}}, "labels has nothing of 'task'"),
        ({"tasks": "task"}, "tasks is 'task', expected list"),
        ({"runs": [{"name": "../../etc", "seed": 0, "peak_lr": 1}]}, "name is '../../etc'"),
        ({"heads": {"task": []}}, "heads.'task'. is a list of 0"),
        ({"config": {"init": 5, "tasks": ["task"], "data": {}}}, "config is damaged: init is 5"),
        ({"format": None}, "was not written by this version"),
    ],
)
def test_a_tampered_record_is_one_line(tmp_path, changes, message):
    """Catches tracebacks for fields of the wrong type, and a run's name that leads out of the workdir."""
    workdir(tmp_path / "ft", "classify")
    path = tmp_path / "ft" / record.RECORD
    files.write_json(path, json.loads(path.read_text()) | changes)
    with pytest.raises(UserError, match=message) as error:
        export.export(tmp_path / "ft", tmp_path / "hf")
    assert "\n" not in str(error.value) and not (tmp_path / "hf").exists()


def test_a_model_of_a_million_layers_costs_nothing(tmp_path):
    """Catches memory and hours for what a record says and no parameters have."""
    workdir(tmp_path / "ft", "classify")
    path = tmp_path / "ft" / record.RECORD
    found = json.loads(path.read_text())
    for layers, message in (
        (10**6, "model.layers=1000000 must be at most"),
        (900, "tensors do not fit"),
    ):
        files.write_json(path, found | {"model": found["model"] | {"layers": layers}})
        with pytest.raises(UserError, match=message):
            export.export(tmp_path / "ft", tmp_path / "hf")


@pytest.mark.slow
def test_from_a_bucket_to_a_bucket(bucket, tmp_path):
    """Catches a fine-tuned workdir on a bucket that is not seen there, and an export that becomes a local folder."""
    workdir(tmp_path / "ft", "classify")
    remote.publish(tmp_path / "ft", f"{bucket}/ft")
    assert record.is_workdir(f"{bucket}/ft") and not record.is_workdir(f"{bucket}/hf")
    export.export(f"{bucket}/ft", f"{bucket}/hf")
    export.export(tmp_path / "ft", tmp_path / "hf")
    names = {path.name: path.stat().st_size for path in (tmp_path / "hf").iterdir()}
    assert remote.sizes(f"{bucket}/hf") == names
    found = start.read(f"{bucket}/ft", ENCODER)
    assert found.origin["kind"] == "fine-tuned" and found.origin["name"] == "ft"
