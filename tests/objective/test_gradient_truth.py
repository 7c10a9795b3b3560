"""The joint loss, its gradient and the optimizer, rebuilt in PyTorch on transformers' modules.

Theirs: `ElectraForMaskedLM` and `ElectraForPreTraining` in float64 with the modules that are tied
made one, and loss, clipping, schedule, decay and Adam written out in torch. Ours, in float32: the
program of a run, `pretrain.program.build` on a mesh of one CPU; its gradient is read from the first
moment of its optimizer after one step, with no clipping. Both get the same weights, masks and
samples on prepared rows of text with padding and two segments, in a vocabulary of more than a tile;
dropout is off. What operations the program takes is compared with what a run of `small` takes.

Float64 on their side makes them the truth: what is left is the rounding of our float32. Reached on
the CPU, in every tying mode (the unit roundoff of float32 is 6e-8):

- loss: 2e-7 of itself (asserted: 1e-6);
- every gradient: 5e-7 of the tensor's largest entry (2e-6);
- parameters after ten steps: 2e-5 of the largest change of the tensor (1e-4). Adam divides a
  gradient by its own size, so entries whose gradient is next to nothing show their rounding whole.

Each of MISTAKES, made on their side, lands more than a hundred times beyond a limit.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.func import functional_call
from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining

from electra_jax.convert import config as configs
from electra_jax.convert import electra_names, entries, names, pair
from electra_jax.data.prepare import build
from electra_jax.data.source import Prepared, open_prepared
from electra_jax.learn import arrays
from electra_jax.learn import mesh as meshes
from electra_jax.learn.optim import AdamMoments, OptimSpec
from electra_jax.learn.step import State, step_keys
from electra_jax.model.electra import Dimensions, Electra
from electra_jax.model.layers import padded_vocab
from electra_jax.model.tokens import Tokens
from electra_jax.ops import noise as noise_ops
from electra_jax.ops.vocabulary import vocabulary_head
from electra_jax.pretrain import program
from electra_jax.pretrain.options import run_spec, with_own_options
from electra_jax.pretrain.program import Program
from electra_jax.spec import from_config, load_config, overridden
from electra_jax.text.special import SpecialIds

SPECIAL = SpecialIds(0, 1, 2, 3, 4)

pytestmark = pytest.mark.torch
LENGTH, ROWS, SEED, STEPS = 64, 8, 3, 10
TOKENS = 3200  # more than a tile of the vocabulary head
LOSS_LIMIT, GRADIENT_LIMIT, STEP_LIMIT = 1e-6, 2e-6, 1e-4
TOTAL_STEPS = 20
SETTINGS = (
    "model.dropout=0.0",
    "model.attention_dropout=0.0",
    "model.generator_layers=0.5",
    "optim.warmup=4",
    f"train.batch={ROWS}",
    f"train.seed={SEED}",
    f"train.steps={TOTAL_STEPS}",
)
OPTIM = from_config(OptimSpec, load_config("tiny", SETTINGS).optim, "optim")
MODES = (
    "embeddings",
    "gdes",
    *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("none", "all")),
)
# Of the discriminator, where it is descended by itself: its rate, as a ratio of the run's, and its clip norm.
RATIO, CLIP = 0.5, 0.7
Flat = dict[str, np.ndarray]
Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class Truth:
    """How the PyTorch side computes; every field but the defaults is a mistake to be found."""

    activation: str = "gelu"
    eps: float = 1e-12
    weight: float = 50.0
    pads_in_loss: bool = False
    labels_by_selection: bool = False
    tied_head: bool = True


MISTAKES = {
    "tanh GELU": Truth(activation="gelu_pytorch_tanh"),
    "eps 1e-6": Truth(eps=1e-6),
    "weight 49": Truth(weight=49.0),
    "pads in the loss": Truth(pads_in_loss=True),
    "labels by selection": Truth(labels_by_selection=True),
    "untied head": Truth(tied_head=False),
}


@dataclass(frozen=True)
class Case:
    """One tying mode: its objective, weights, corrupted batch, and our loss and gradient on it."""

    objective: Any
    params: dict[str, Any]
    batch: Batch
    loss: float
    gradient: Flat


@pytest.fixture(scope="module")
def prepared(
    real: Path | None, written: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Prepared:
    """Held-out Wikipedia (or written text) in A/B segments, with a vocabulary that lacks many of its words.

    So the commonest token is [UNK], and a generator that prefers it now and then samples the true token.
    """
    path = tmp_path_factory.mktemp("truth")
    if real is None:
        entries = written.entries("english", TOKENS, True)
        # A third of the words is missing.
        entries = [
            x for n, x in enumerate(entries) if len(x) == 1 or n % 3 or x in written.SPECIALS
        ]
        text = path / "text.txt"
        lines = [x for x in written.paragraphs("english", 3000) if len(x) < 300]
        documents = ("\n".join(lines[i : i + 1 + i // 7 % 7]) for i in range(0, len(lines), 7))
        text.write_text("\n\n".join(documents))
    else:
        known = (real / "vocab" / "bert-base-uncased-vocab.txt").read_text().splitlines()
        entries = [*written.SPECIALS, *known[999:1064], *known[2100:]][:TOKENS]
        text = real / "pretrain" / "valid" / "enwiki-valid.txt.gz"
    (path / "vocab.txt").write_text("\n".join(entries) + "\n")
    build.prepare([str(text)], path / "vocab.txt", LENGTH, path / "data", workers=1)
    return open_prepared(path / "data")


@pytest.fixture(scope="module")
def rows(prepared: Prepared) -> Batch:
    """The first rows that have both padding and two segments."""
    source = prepared.source("train")
    found = source.rows(np.arange(len(source)))
    good = (found["docs"][:, -1] == 0) & (found["types"] == 1).any(axis=1)
    assert good.sum() >= ROWS
    return {name: value[good][:ROWS] for name, value in found.items()}


def compiled(prepared: Prepared, tying: str, *more: str) -> Program:
    """The program of a run on one CPU."""
    config = with_own_options(load_config("tiny"))
    run = run_spec(overridden(config, [*SETTINGS, f"model.tying={tying}", *more]).to_dict())
    (phase,) = run.phases(prepared)
    return program.build(run, phase, meshes.build(run.mesh, jax.devices()[:1]))


def started(built: Program, params: dict[str, Any]) -> State:
    """The run's first state, with these parameters."""
    return built.init() | {"params": built.place_params(params)}


def placed(built: Program, rows: Batch) -> dict[str, jax.Array]:
    """Rows on the program's device."""
    return {name: jax.device_put(rows[name], built.batch_sharding) for name in program.FIELDS}


def weights(objective: Any) -> dict[str, Any]:
    """Random weights where GELU bends, norms scale and biases matter, as after training."""
    rng = np.random.default_rng(SEED)
    flat = {}
    for name, x in arrays.flatten(jax.eval_shape(objective.init, jax.random.key(0))).items():
        # Kernels are three times as large as in a fresh model, tables as large as in one.
        scale = 0.06 if name.endswith("kernel") else 0.1 if x.ndim == 1 else 0.02
        value = rng.normal(scale=scale, size=x.shape).astype(np.float32)
        if name.endswith("scale"):
            value += 1
        if name == "generator_head/bias":
            value[1] = 8  # [UNK] is the commonest token of these rows: some guesses come true
        if x.shape[0] == padded_vocab(objective.dims.vocab_size):
            value[objective.dims.vocab_size :] = 0
        flat[name] = value
    return arrays.nest(flat)


def corrupted(objective: Any, rows: Batch, step: int | jax.Array) -> dict[str, jax.Array]:
    """The batch as the train step corrupts it at `step`."""
    batch = {name: jnp.asarray(value) for name, value in rows.items()} | {"rows": jnp.arange(ROWS)}
    return objective.prepare(batch, step_keys(SEED, jnp.asarray(step, jnp.int32)))


def samples(
    objective: Any, params: dict[str, Any], batch: dict[str, jax.Array], step: int | jax.Array
) -> jax.Array:
    """The generator's replacements [B, K] at `step`."""
    tokens = Tokens.of(batch)._replace(ids=batch["masked"])
    hidden, table, bias = Electra(objective.dims).apply(
        {"params": params}, tokens, batch["chosen"], method=Electra.generate
    )
    head = vocabulary_head(
        hidden,
        table,
        bias,
        jnp.take_along_axis(batch["ids"], batch["chosen"], axis=1),
        batch["weights"],
        vocab_size=objective.dims.vocab_size,
        noise=noise_ops.for_rows(
            step_keys(SEED, jnp.asarray(step, jnp.int32))["sample"], batch["rows"]
        ),
    )
    return head.sampled_BxK


def corrupter(built: Program, rows: Batch) -> Callable[[Any, Any], dict[str, jax.Array]]:
    """(params, step) -> the batch as the program corrupts it at that step, and the generator's samples."""

    def corrupt(params: dict[str, Any], step: jax.Array) -> dict[str, jax.Array]:
        batch = corrupted(built.objective, rows, step)
        return batch | {"sampled": samples(built.objective, params, batch, step)}

    return jax.jit(meshes.on_mesh(corrupt, built.mesh))


def first_moment(state: State) -> Flat:
    """The first moments of a state's optimizers, by path."""
    is_adam = lambda node: isinstance(node, AdamMoments)  # noqa: E731
    found: Flat = {}
    for one in filter(is_adam, jax.tree.leaves(state["opt_state"], is_leaf=is_adam)):
        found |= arrays.flatten(jax.device_get(one.mu))
    return found


@pytest.fixture(scope="module")
def cases(prepared: Prepared, rows: Batch) -> Callable[[str], Case]:
    """tying -> Case, computed once."""
    made: dict[str, Case] = {}

    def case(tying: str) -> Case:
        if tying in made:
            return made[tying]
        built = compiled(prepared, tying, "optim.clip_norm=1e9")
        params = weights(built.objective)
        batch = jax.device_get(corrupter(built, rows)(params, 0))
        state, sums = built.train_step(started(built, params), placed(built, rows))
        gradient = {
            name: m / np.float32(1 - OPTIM.beta1) for name, m in first_moment(state).items()
        }
        loss = float(sums["step/total_loss"])
        made[tying] = Case(built.objective, params, batch, loss, gradient)
        return made[tying]

    return case


def test_the_program_is_that_of_a_run(
    prepared: Prepared, taken_by: Callable[[Program], set[str]], taken_by_pretrain: set[str]
) -> None:
    """Catches a proof of another program than runs: other products, norms or barriers, a vocabulary in one tile."""
    assert taken_by(compiled(prepared, "embeddings")) == taken_by_pretrain
    assert {"vocabulary_head/tiles", "product/by_hand", "apart/barrier"} <= taken_by_pretrain


class Theirs:
    """Both networks in PyTorch, float64, with our weights and with what `tying` shares made one."""

    def __init__(self, dims: Dimensions, params: dict[str, Any], truth: Truth) -> None:
        self.truth, self.padded = truth, padded_vocab(dims.vocab_size)
        self.tables = pair.discriminator_table(dims), pair.generator_table(dims)
        tensors = names.export(arrays.flatten(params), self.tables, self.padded, "the test")
        self.models = []
        encoders = dims.discriminator, dims.generator
        classes = ElectraForPreTraining, ElectraForMaskedLM
        for values, encoder, architecture in zip(tensors, encoders, classes, strict=True):
            shape, options = pair.shape_of(dims, encoder), entries.Options(0.0, 0.0)
            config = configs.of(shape, options, architecture.__name__, SPECIAL)
            config |= {"hidden_act": truth.activation, "layer_norm_eps": truth.eps}
            model = architecture(ElectraConfig(**config, attn_implementation="eager")).double()
            state = {name: torch.from_numpy(value).double() for name, value in values.items()}
            if architecture is ElectraForMaskedLM:
                state[electra_names.TIED_TABLE] = state[electra_names.WORD_TABLE].clone()
            model.load_state_dict(state)
            # Theirs never trains the row of [PAD]; in the original it gets a gradient where the
            # generator samples it.
            model.electra.embeddings.word_embeddings.padding_idx = None
            self.models.append(model)
        discriminator, generator = self.models
        if dims.spec.tying == "all":
            generator.electra = discriminator.electra
        elif dims.spec.tying == "embeddings":
            generator.electra.embeddings = discriminator.electra.embeddings
        self.disentangled = dims.spec.tying == "gdes"
        word = generator.electra.embeddings.word_embeddings.weight
        generator.generator_lm_head.weight = (
            word if truth.tied_head else torch.nn.Parameter(word.detach().clone())
        )
        if truth.activation != "gelu":
            generator.generator_predictions.activation = torch.nn.GELU(approximate="tanh")

    def loss(self, batch: Batch) -> torch.Tensor:
        """generator loss + weight x discriminator loss on a corrupted batch with its samples."""
        discriminator, generator = self.models
        b = {name: torch.tensor(value).long() for name, value in batch.items()}
        valid = b["docs"] > 0
        inputs = {"attention_mask": valid.long(), "token_type_ids": b["types"]}
        rows = torch.arange(len(valid))[:, None]
        counted = b["weights"] > 0

        logits = generator(b["masked"], **inputs).logits[rows, b["chosen"]]
        true = b["ids"][rows, b["chosen"]]
        nll = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), true.flatten(), reduction="none"
        )
        total = (nll * counted.flatten()).sum() / (counted.sum() + 1e-6)

        fake = b["ids"].clone()
        selected = torch.zeros_like(valid)
        for row, slot in counted.nonzero():
            fake[row, b["chosen"][row, slot]] = b["sampled"][row, slot]
            selected[row, b["chosen"][row, slot]] = True
        label = selected if self.truth.labels_by_selection else fake != b["ids"]
        logits = functional_call(discriminator, self.sums(), (fake,), inputs).logits
        bce = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, label.to(logits.dtype), reduction="none"
        )
        weight = torch.ones_like(bce) if self.truth.pads_in_loss else valid.to(bce.dtype)
        return total + self.truth.weight * (bce * weight).sum() / (weight.sum() + 1e-6)

    def sums(self) -> dict[str, torch.Tensor]:
        """What stands in place of the discriminator's own tables, which are deltas to the generator's."""
        discriminator, generator = (dict(model.named_parameters()) for model in self.models)
        return {
            name: generator[name].detach() + delta
            for name, delta in discriminator.items()
            if self.disentangled and re.fullmatch(r".*\.embeddings\.\w+_embeddings\.weight", name)
        }

    def in_our_names(self, value: Callable[[torch.nn.Parameter], torch.Tensor]) -> Flat:
        """`value` of every parameter under our paths, float64."""
        flat: Flat = {}
        for model, table in zip(self.models, self.tables, strict=True):
            by_name = dict(model.named_parameters(remove_duplicate=False))
            for entry in table:
                array = value(by_name[entry.theirs]).detach().numpy()
                if entry.transform == entries.TRANSPOSED:
                    array = array.T
                elif entry.transform == entries.VOCABULARY:
                    rows = [(0, self.padded - len(array))] + [(0, 0)] * (array.ndim - 1)
                    array = np.pad(array, rows)
                flat[entry.ours] = np.array(array)
        return flat

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """Every parameter once, under one of its names."""
        found: dict[int, tuple[str, torch.nn.Parameter]] = {}
        for model in self.models:
            for name, parameter in model.named_parameters():
                found.setdefault(id(parameter), (f"{type(model).__name__}.{name}", parameter))
        return dict(found.values())


def gradient_error(ours: Flat, theirs: Flat) -> tuple[float, str]:
    """The largest distance of a gradient, relative to the tensor's largest entry, and where.

    A tensor whose gradients all but cancel (key biases move nothing) is measured against a
    thousandth of the largest gradient of all.
    """
    assert ours.keys() == theirs.keys()
    floor = 1e-3 * max(np.abs(g).max() for g in theirs.values())
    errors = {
        name: np.abs(ours[name] - g).max() / max(np.abs(g).max(), floor)
        for name, g in theirs.items()
    }
    worst = max(errors, key=lambda name: errors[name])
    return float(errors[worst]), worst


def disagreement(case: Case, truth: Truth) -> dict[str, float]:
    """Distance of loss and gradients in units of their limits."""
    theirs = Theirs(case.objective.dims, case.params, truth)
    loss = theirs.loss(case.batch)
    loss.backward()
    error, worst = gradient_error(case.gradient, theirs.in_our_names(lambda p: p.grad))
    apart = abs(case.loss - loss.item()) / loss.item()
    print(f"loss {apart:.1e}, gradient {error:.1e} in {worst}")
    return {"loss": apart / LOSS_LIMIT, "gradient": error / GRADIENT_LIMIT}


@pytest.mark.parametrize("tying", MODES)
def test_loss_and_every_gradient(cases: Callable[[str], Case], tying: str) -> None:
    """Any difference in what is computed: see MISTAKES for those this test has been seen to find."""
    case = cases(tying)
    replaced = case.batch["sampled"] != np.take_along_axis(
        case.batch["ids"], case.batch["chosen"], 1
    )
    assert 0 < replaced[case.batch["weights"] > 0].mean() < 1
    found = disagreement(case, Truth())
    assert max(found.values()) <= 1, found
    padding = slice(case.objective.dims.vocab_size, None)
    assert not case.gradient["embeddings/word"][padding].any()
    assert not case.gradient["generator_head/bias"][padding].any()


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found(cases: Callable[[str], Case], mistake: str) -> None:
    """A limit so wide that a known mistake passes under it: each must be a hundred times too far off."""
    found = disagreement(cases("embeddings"), MISTAKES[mistake])
    assert max(found.values()) > 100, found


def torch_step(
    theirs: Theirs, moments: dict[str, list[torch.Tensor]], batch: Batch, step: int
) -> float:
    """One step of the original's optimizer, or of two; returns the norm of the gradient before clipping."""
    parameters = theirs.parameters()
    for parameter in parameters.values():
        parameter.grad = None
    theirs.loss(batch).backward()

    def norm_of(start: str) -> float:
        found = (p.grad for name, p in parameters.items() if name.startswith(start))
        return sum(float((g**2).sum()) for g in found) ** 0.5

    whole = OPTIM.peak_lr * (1 - step / TOTAL_STEPS) * min(1.0, step / OPTIM.warmup)
    with torch.no_grad():
        for name, p in parameters.items():
            clip, rate, norm = OPTIM.clip_norm, whole, norm_of("")
            if theirs.disentangled:
                norm = norm_of(name.partition(".")[0])
                if name.startswith(ElectraForPreTraining.__name__):
                    clip, rate = CLIP, RATIO * whole
            g = p.grad * min(1.0, clip / norm)
            m, v = moments.setdefault(name, [torch.zeros_like(p), torch.zeros_like(p)])
            m.mul_(0.9).add_(0.1 * g)
            v.mul_(0.999).add_(0.001 * g * g)
            change = m / (v.sqrt() + 1e-6)
            if "LayerNorm" not in name and not name.endswith("bias"):
                change += 0.01 * p
            p -= rate * change
    return norm_of("")


@pytest.mark.slow
@pytest.mark.parametrize("tying", ("embeddings", "none", "all", "gdes"))
def test_ten_steps(
    cases: Callable[[str], Case], prepared: Prepared, rows: Batch, tying: str
) -> None:
    """Bias correction, a decayed bias, decay before clipping, the warmup of BERT, a step off by one."""
    case = cases(tying)
    theirs = Theirs(case.objective.dims, case.params, Truth())
    own = [f"objective.discriminator_rate={RATIO}", f"objective.discriminator_clip={CLIP}"]
    built = compiled(prepared, tying, *(own if tying == "gdes" else ()))
    corrupt, given = corrupter(built, rows), placed(built, rows)
    state = started(built, case.params)
    moments: dict[str, list[torch.Tensor]] = {}
    norms = []
    for step in range(STEPS):
        batch = jax.device_get(corrupt(state["params"], jnp.int32(step)))
        norms.append(torch_step(theirs, moments, batch, step))
        state, sums = built.train_step(state, given)
        assert float(sums["step/grad_norm"]) == pytest.approx(norms[-1], rel=1e-5)
    assert max(norms) > OPTIM.clip_norm
    before = arrays.flatten(case.params)
    ours = arrays.flatten(jax.device_get(state["params"]))
    found = theirs.in_our_names(lambda p: p)
    change = {name: np.abs(p - before[name]).max() for name, p in found.items()}
    floor = 0.1 * max(change.values())
    errors = {
        name: np.abs(ours[name] - p).max() / max(change[name], floor) for name, p in found.items()
    }
    worst = max(errors, key=lambda name: errors[name])
    print(f"{tying}: {errors[worst]:.1e} in {worst}; norms {min(norms):.2f} to {max(norms):.2f}")
    assert errors[worst] <= STEP_LIMIT
