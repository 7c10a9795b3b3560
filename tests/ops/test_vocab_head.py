"""The vocabulary head against the same sums written out, and its samples against their distribution."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from scipy import stats

from electra_jax.ops import noise as noise_ops
from electra_jax.ops.vocabulary import HeadOutput, api, samplers, vocabulary_head

B, K, E, V, PADDED = 3, 5, 8, 50, 128


def inputs(seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    table = np.zeros((PADDED, E), np.float32)
    table[:V] = draw.normal(size=(V, E))
    bias = np.zeros(PADDED, np.float32)
    bias[:V] = draw.normal(size=V)
    return {
        "hidden": draw.normal(size=(B, K, E)).astype(np.float32),
        "table": table,
        "bias": bias,
        "targets": draw.integers(0, V, (B, K)).astype(np.int32),
        "weights": (draw.random((B, K)) < 0.7).astype(np.float32),
    }


@pytest.fixture(autouse=True, params=[128, 48], ids=["whole", "tiles"])
def tile(request, monkeypatch) -> int:
    """Every test runs on all logits at once and on tiles, the last of which overlaps the one before."""
    monkeypatch.setattr(api, "TILE", request.param)
    return request.param


@pytest.fixture(params=list(samplers.SAMPLERS))
def sampler(request, monkeypatch) -> str:
    """Groups that divide the tests' small tables and tiles."""
    monkeypatch.setattr(samplers, "GROUP", 16)
    return request.param


# For what the head on all logits cannot show.
only_tiles = pytest.mark.parametrize("tile", [48], ids=["tiles"], indirect=True)


def head(x: dict, seed: int = 0, **options) -> HeadOutput:
    return _head(x, seed, api.TILE, **options)


@partial(jax.jit, static_argnames=("temperature", "disallow_correct", "sampler", "tile"))
def _head(x: dict, seed: int, tile: int, **options) -> HeadOutput:
    noise = noise_ops.for_rows(jax.random.key(seed), jnp.arange(x["hidden"].shape[0]))
    arrays = (x["hidden"], x["table"], x["bias"], x["targets"], x["weights"])
    return vocabulary_head(*arrays, vocab_size=V, noise=noise, tile=tile, **options)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def log_p(x: dict, temperature: float = 1.0) -> np.ndarray:
    """Log-probabilities of the real vocabulary, float64."""
    logits = x["hidden"].astype(np.float64) @ x["table"][:V].T + x["bias"][:V]
    return log_softmax(logits / temperature)


def test_sums_written_out():
    """Catches a padded id in the softmax, a sum without its weights, entropy of the sampling
    distribution instead of the model's, and log_q at another temperature than the sample's."""
    x = inputs()
    out = head(x, temperature=2.0)
    p, w = log_p(x), x["weights"]
    at = np.take_along_axis(p, x["targets"][..., None], -1)[..., 0]
    assert float(out.loss) == pytest.approx(-(at * w).sum(), rel=1e-6)
    assert float(out.entropy) == pytest.approx(-((np.exp(p) * p).sum(-1) * w).sum(), rel=1e-6)
    assert float(out.correct) == ((p.argmax(-1) == x["targets"]) * w).sum()
    assert float(out.sampled_correct) == ((out.sampled_BxK == x["targets"]) * w).sum()
    q = np.take_along_axis(log_p(x, 2.0), np.asarray(out.sampled_BxK)[..., None], -1)[..., 0]
    assert np.abs(np.asarray(out.log_q_BxK) - q).max() < 1e-5
    assert out.sampled_BxK.dtype == jnp.int32


def test_accuracies_count_what_is_right():
    """Catches accuracies that are always 0: with a huge bias on every target both are full."""
    x = inputs()
    x["targets"][:] = 7
    x["bias"][7] = 100
    out = head(x)
    assert float(out.correct) == float(out.sampled_correct) == x["weights"].sum()
    assert float(out.entropy) == pytest.approx(0, abs=1e-6)


def test_gradients_written_out():
    """Catches a gradient through samples or entropy, and one that reaches padded rows: the loss's
    gradient is (softmax - one-hot) x weight, of everything else it is zero."""
    x = inputs()
    probability = np.exp(log_p(x))
    np.put_along_axis(
        probability,
        x["targets"][..., None],
        np.take_along_axis(probability, x["targets"][..., None], -1) - 1,
        -1,
    )
    d_logits = probability * x["weights"][..., None]

    others = ("correct", "sampled_correct", "entropy", "log_q_BxK")

    @jax.jit
    def gradients(*at):
        def output(name, hidden, table, bias):
            out = head(x | {"hidden": hidden, "table": table, "bias": bias})
            return jnp.sum(getattr(out, name))

        return [
            jax.grad(partial(output, name), argnums=(0, 1, 2))(*at) for name in ("loss", *others)
        ]

    (hidden, table, bias), *none = gradients(x["hidden"], x["table"], x["bias"])
    assert np.abs(np.asarray(hidden) - d_logits @ x["table"][:V]).max() < 1e-5
    expected = np.einsum("bkv,bke->ve", d_logits, x["hidden"])
    assert np.abs(np.asarray(table)[:V] - expected).max() < 1e-5
    assert np.abs(np.asarray(bias)[:V] - d_logits.sum((0, 1))).max() < 1e-5
    assert np.all(np.asarray(table)[V:] == 0)
    assert np.all(np.asarray(bias)[V:] == 0)
    for name, actual in zip(others, none, strict=True):
        assert all(np.all(np.asarray(gradient) == 0) for gradient in actual), name


@pytest.fixture(scope="module")
def many() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The same position 400 x 50 times, with its log-probabilities at temperature 1.7."""
    x = inputs(1)
    rows, slots = 400, 50
    big = {name: x[name] for name in ("table", "bias")}
    big["hidden"] = np.tile(x["hidden"][:1, :1], (rows, slots, 1))
    big["targets"] = np.full((rows, slots), int(log_p(x)[0, 0].argmax()), np.int32)
    big["weights"] = np.ones((rows, slots), np.float32)
    return big, log_p(x, 1.7)[0, 0]


def chi_square(sampled: np.ndarray, expected: np.ndarray) -> float:
    """The p-value; ids that are expected fewer than ten times are left out."""
    counts = np.bincount(sampled.ravel(), minlength=V)
    often = expected * sampled.size >= 10
    rest = sampled.size - counts[often].sum()
    assert rest <= 10 * (~often).sum() + 10
    scaled = expected[often] / expected[often].sum() * counts[often].sum()
    return stats.chisquare(counts[often], scaled).pvalue


def test_samples_follow_the_softmax_at_the_temperature(many, sampler):
    """Catches a temperature that multiplies, one noise for all slots or rows, low-precision noise,
    a padded id ever drawn, and a group drawn by its largest logit in place of its sum."""
    big, log_q = many
    out = head(big, temperature=1.7, sampler=sampler)
    sampled = np.asarray(out.sampled_BxK)
    assert np.abs(out.log_q_BxK - log_q[sampled]).max() < 1e-5
    assert sampled.min() >= 0
    assert sampled.max() < V
    assert chi_square(sampled, np.exp(log_q)) > 1e-6
    # Neighbouring slots and rows draw independently: ids that are equal, or a little apart (noise
    # whose numbers overlap from slot to slot), come together as often as chance has it.
    q = np.exp(log_q)
    for a, b in ((sampled[:, 1:], sampled[:, :-1]), (sampled[1:], sampled[:-1])):
        for apart in range(-3, 4):
            chance = float(
                (q[max(0, apart) : V + min(0, apart)] * q[max(0, -apart) :][: V - abs(apart)]).sum()
            )
            assert abs((a - b == apart).mean() - chance) < 5 * np.sqrt(chance / a.size), apart


def test_padded_ids_are_never_drawn_even_when_everything_else_is_unlikely(many, sampler):
    """Catches padding masked by a finite number, which low logits come near."""
    big, _ = many
    bias = np.where(np.arange(PADDED) < V, -1e8, 0).astype(np.float32)
    out = head(big | {"bias": bias}, sampler=sampler)
    assert np.asarray(out.sampled_BxK).max() < V
    assert np.isfinite(float(out.loss))
    assert np.isfinite(float(out.entropy))


def test_disallow_correct(many, sampler):
    """Catches the true token drawn, or a distribution over the rest that is not its softmax."""
    big, log_q = many
    out = head(big, temperature=1.7, disallow_correct=True, sampler=sampler)
    target = int(big["targets"][0, 0])
    assert float(out.sampled_correct) == 0
    left = np.exp(log_q)
    left[target] = 0
    left /= left.sum()
    sampled = np.asarray(out.sampled_BxK)
    assert chi_square(sampled, left) > 1e-6
    assert np.abs(np.exp(out.log_q_BxK) - left[sampled]).max() < 1e-5
    # The loss is still that of the whole softmax.
    assert float(out.loss) == float(head(big).loss)


def test_samples_do_not_depend_on_the_padding_of_the_table():
    """Catches noise numbered through the padded vocabulary: without padding the same ids come."""
    x = inputs()
    bare = x | {"table": x["table"][:V], "bias": x["bias"][:V]}
    assert np.array_equal(head(x).sampled_BxK, head(bare).sampled_BxK)


def test_low_precision_hidden_states_give_float32_sums():
    """Catches logits rounded to bfloat16 before the softmax."""
    x = inputs()
    low = x | {"hidden": jnp.asarray(x["hidden"], jnp.bfloat16)}
    out = head(low)
    rounded = np.asarray(jnp.asarray(x["table"], jnp.bfloat16), np.float32)
    same = x | {"hidden": np.asarray(low["hidden"], np.float32), "table": rounded}
    assert float(out.loss) == pytest.approx(float(head(same).loss), rel=1e-6)
    assert out.loss.dtype == out.log_q_BxK.dtype == jnp.float32


def big(rows: int = 2, vocab: int = 1000, padded: int = 1024) -> dict:
    """More ids than fit a tile, in shapes that no tile divides."""
    draw = np.random.default_rng(4)
    return {
        "hidden": draw.normal(size=(rows, 7, 16)).astype(np.float32),
        "table": draw.normal(size=(padded, 16)).astype(np.float32),
        "bias": draw.normal(size=padded).astype(np.float32) * 3,
        "targets": draw.integers(0, vocab, (rows, 7)).astype(np.int32),
        "weights": (draw.random((rows, 7)) < 0.7).astype(np.float32),
    }


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 1.7}, {"temperature": 0.5, "disallow_correct": True}],
    ids=str,
)
@only_tiles
def test_tiles_change_nothing(options, tile, sampler):
    """Catches a running maximum that forgets, an overlapping last tile counted twice, noise numbered
    within the tile, and a gradient that a tile writes over another's."""
    x, vocab = big(), 1000
    noise = noise_ops.for_rows(jax.random.key(3), jnp.arange(2))

    @partial(jax.jit, static_argnums=3)
    def run(hidden, table, bias, tile):
        def loss(hidden, table, bias):
            out = vocabulary_head(
                hidden,
                table,
                bias,
                x["targets"],
                x["weights"],
                vocab_size=vocab,
                noise=noise,
                tile=tile,
                sampler=sampler,
                **options,
            )
            return out.loss, out

        return jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(hidden, table, bias)

    arrays = (x["hidden"], x["table"], x["bias"])
    (_, whole), whole_gradients = run(*arrays, 1024)
    # Groups divide the tile. With them a sample's log-probability is off by a unit in the last place of its logit.
    sizes, unit = ((128, 300, 1000), 2e-6) if sampler == "gumbel" else ((128, 304, 1008), 4e-6)
    for size in sizes:
        (_, tiled), gradients = run(*arrays, size)
        assert np.array_equal(tiled.sampled_BxK, whole.sampled_BxK)
        for name in ("loss", "correct", "sampled_correct", "entropy", "log_q_BxK"):
            atol = unit if name == "log_q_BxK" else 2e-6
            np.testing.assert_allclose(
                getattr(tiled, name), getattr(whole, name), rtol=2e-6, atol=atol, err_msg=name
            )
        for actual, expected in zip(gradients, whole_gradients, strict=True):
            np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-6)


@only_tiles
def test_devices_change_nothing_and_add_up_once(tile):
    """Catches rows that get another device's noise, a table's gradient of one device's rows, and one
    that is added up after every tile."""
    x = big(8)
    mesh = jax.make_mesh((4, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    rows, whole = NamedSharding(mesh, P(("data", "fsdp"))), NamedSharding(mesh, P())

    def gradients(hidden, table, bias, targets, weights, numbers):
        noise = noise_ops.for_rows(jax.random.key(3), numbers)

        def loss(hidden, table, bias):
            out = vocabulary_head(
                hidden, table, bias, targets, weights, vocab_size=1000, noise=noise, tile=300
            )
            return out.loss, out.sampled_BxK

        return jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(hidden, table, bias)

    def on_mesh(*arrays):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return gradients(*arrays)

    arrays = (x["hidden"], x["table"], x["bias"], x["targets"], x["weights"], np.arange(8))
    # What each device should do, one after another: the same shapes, so the same order of sums.
    hidden, table, bias, *by_row = arrays
    alone = [
        jax.jit(gradients)(hidden[i : i + 1], table, bias, *(a[i : i + 1] for a in by_row))
        for i in range(8)
    ]
    of_hidden, of_table, of_bias = zip(*(gradients for gradients, _ in alone), strict=True)
    expected = (np.concatenate(of_hidden), sum(of_table), sum(of_bias))
    sampled = np.concatenate([ids for _, ids in alone])
    placed = [jax.device_put(a, whole if i in (1, 2) else rows) for i, a in enumerate(arrays)]
    compiled = jax.jit(on_mesh).lower(*placed).compile()
    actual, same = compiled(*placed)
    assert np.array_equal(same, sampled)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)
    loops = [line for line in compiled.as_text().splitlines() if "all-reduce(" in line]
    assert loops and not any("/while/" in line for line in loops)


@only_tiles
def test_no_array_of_all_logits(tile):
    """Catches a tiled head whose compiled program still holds [B, K, V], forward or backward."""
    x = big(64)
    noise = noise_ops.for_rows(jax.random.key(3), jnp.arange(64))

    def loss(hidden, table, bias):
        out = vocabulary_head(
            hidden, table, bias, x["targets"], x["weights"], vocab_size=1000, noise=noise, tile=128
        )
        return out.loss, out

    arrays = (x["hidden"], x["table"], x["bias"])
    compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True)).lower(*arrays).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 64 * 7 * 1024 * 4
