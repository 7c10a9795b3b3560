"""Twenty training steps beside PyTorch: transformers' weights and heads, the same data in the same order."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from electra_jax.convert import names, pair
from electra_jax.finetune import rows, start
from electra_jax.finetune.heads import HeadSpec
from electra_jax.finetune.kinds import table as kinds
from electra_jax.finetune.network import NetworkSpec
from electra_jax.finetune.options import ModelOptions, OptimOptions
from electra_jax.finetune.program import Program, StepSpec
from electra_jax.learn import arrays
from electra_jax.learn import mesh as meshes
from electra_jax.model.layers import padded_vocab
from electra_jax.tasks import task as tasks
from electra_jax.tasks.known import catalog

STEPS, BATCH, LENGTH, PEAK = 20, 8, 32, 1e-3
OPTIM = OptimOptions(
    name="adamw",
    peak_lr=None,
    layer_decay=None,
    layer_decay_off_by_one=False,
    warmup=0.1,
    lr_power=1.0,
    beta1=0.9,
    beta2=0.999,
    eps=1e-6,
    weight_decay=0.0,
    clip_norm=1.0,
    frozen_layers=0,
)
TASKS = {
    "sst2": (transformers.ElectraForSequenceClassification, "glue"),
    "ner": (transformers.ElectraForTokenClassification, "tagging"),
    "squad1": (transformers.ElectraForQuestionAnswering, "squad/dev-v1.1-xquad-en.json.gz"),
}
pytestmark = [pytest.mark.slow, pytest.mark.torch]


@pytest.fixture(scope="module")
def vocab(shared: Path) -> Path:
    return shared / "vocab" / "bert-base-uncased-vocab.txt"


def hugging_face(folder: Path, vocab: Path, kind: type, labels: int):
    """A small model with transformers' own initial weights, saved with its tokenizer."""
    torch.manual_seed(0)
    config = transformers.ElectraConfig(
        vocab_size=30522,
        embedding_size=32,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=64,
        num_labels=labels,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = kind(config)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_bytes(vocab.read_bytes())
    return model


def torch_losses(model, batches) -> list[float]:
    """The losses that PyTorch's AdamW leaves, with the same warmup, decay and clipping."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, eps=1e-6, weight_decay=0.0)
    warmup = round(0.1 * STEPS)
    rate = lambda step: (1 - step / STEPS) * min(1.0, step / warmup)  # noqa: E731
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    model.train()
    losses = []
    for batch in batches:
        given = {name: torch.tensor(x, dtype=torch.long) for name, x in batch.items()}
        targets = {"label": "labels", "start": "start_positions", "end": "end_positions"}
        said = model(
            input_ids=given["ids"],
            token_type_ids=given["types"],
            attention_mask=given["docs"],
            **{theirs: given[ours] for ours, theirs in targets.items() if ours in given},
        )
        optimizer.zero_grad()
        said.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(said.loss.item())
    return losses


@pytest.mark.parametrize("name", TASKS)
def test_twenty_steps_follow_pytorch(name, shared, vocab, tmp_path):
    """Catches any difference in head, loss, gradient, clipping, schedule or optimizer."""
    kind, where = TASKS[name]
    task = catalog.get(name)
    examples = task.read(shared / where, "dev")[:600]
    labels = tasks.labels_of(task, examples) if task.kind in ("classify", "tag") else ()
    model = hugging_face(tmp_path, vocab, kind, len(labels) or 2)
    encoder = ModelOptions(
        layers=1,
        width=1,
        heads=1,
        ffn=1,
        embedding=1,
        positions=1,
        types=1,
        init_std=0.02,
        dropout=0.0,
        attention_dropout=0.0,
        dtype="float32",
        residual_dtype="float32",
        remat="none",
    )
    found = start.read(str(tmp_path), encoder)
    made = kinds.features(task, examples, found.tokenizer, LENGTH, labels, training=True)
    data = rows.of_features(made, kinds.get(task.kind).labels(task, made), 0)
    # transformers' span loss counts padding as positions, so its rows have none.
    usable = np.flatnonzero(data.lengths == LENGTH) if task.kind == "qa" else np.arange(len(data))
    order = np.random.default_rng(0).permutation(usable)[: STEPS * BATCH].reshape(STEPS, BATCH)
    batches = [data.batch(numbers, LENGTH) for numbers in order]

    head = HeadSpec(
        kind=task.kind,
        style="hf",
        outputs=len(labels) or 2,
        dropout=0.0,
        init_std=0.02,
        dtype="float32",
    )
    shape = pair.shape_of(found.dims, found.dims.discriminator)
    table = names.encoder_only(shape) + kinds.get(task.kind).border(
        shape, head.outputs, f"heads_{name}"
    )
    weights = {key: value.numpy() for key, value in model.state_dict().items()}
    flat = names.import_(weights, table, padded_vocab(found.dims.vocab_size), "transformers")
    spec = StepSpec(
        network=NetworkSpec(dims=found.dims, heads=((name, head),)),
        optim=OPTIM,
        layer_decay=1.0,
        reduction="mean",
        steps=STEPS,
    )
    program = Program(spec, meshes.build(meshes.MeshSpec(-1, 1), jax.devices()[:1]))
    state = program.init(None, [0], [PEAK])
    state["params"] = program.params(arrays.nest(flat))
    losses = []
    for batch in batches:
        state, told = program.step(name, state, batch)
        losses.append(float(told["loss"]))
    expected = torch_losses(model, batches)
    assert expected[-1] < expected[0]
    np.testing.assert_allclose(losses, expected, atol=1e-4)
    assert jnp.isfinite(told["grad_norm"])
