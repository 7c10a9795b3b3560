"""Scores of texts: those of the definitions, whatever the batch, the devices and the folder."""

import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from electra_jax.cli.commands import main
from electra_jax.convert import exportable, hf
from electra_jax.learn import arrays
from electra_jax.learn import mesh as meshes
from electra_jax.model.towers import Towers
from electra_jax.objective import electric
from electra_jax.scoring import model, score, texts
from electra_jax.scoring.score import Score
from electra_jax.spec import UserError
from electra_jax.text import tokenizer

TEXTS = [
    "The cats sit on the mat.",
    "A dogged cat",
    "dogs",
    "the red dog sitting on a mat, the cat",
]


def scores(
    folder: Path, head: str = "", word_l2r: bool = False, of: list[str] = TEXTS
) -> list[Score]:
    """The scores of these texts by the model of this folder."""
    scorer = model.read(str(folder), head)
    encoded = texts.encode(texts.given(of), scorer.tokenizer, scorer.room, True)
    return list(score.score(scorer, encoded, word_l2r, progress=False))


def same(first: list[Score], second: list[Score], most: float = 2e-5) -> None:
    """Asserts equal tokens and nearly equal scores."""
    assert [one.tokens for one in first] == [one.tokens for one in second]
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a.values_N, b.values_N, atol=most, rtol=0)


@pytest.mark.torch
@pytest.mark.parametrize("word_l2r", [False, True])
def test_masked_lm_by_transformers(masked_lm: Path, word_l2r: bool) -> None:
    """A token that sees itself, an off-by-one place, a wrong part of the network, the rest of a word unmasked."""
    import torch
    from transformers import AutoTokenizer, ElectraForMaskedLM

    theirs = ElectraForMaskedLM.from_pretrained(masked_lm / "hf" / "model").eval()
    words = AutoTokenizer.from_pretrained(masked_lm / "hf" / "model")
    for one in scores(masked_lm / "run", word_l2r=word_l2r):
        ids = words(one.text, return_tensors="pt")["input_ids"]
        names = words.convert_ids_to_tokens(ids[0].tolist())
        assert names[1:-1] == one.tokens
        expected = []
        for at in range(1, len(names) - 1):
            masked, stop = ids.clone(), at + 1
            while word_l2r and names[stop].startswith("##"):
                stop += 1
            masked[0, at:stop] = words.mask_token_id
            with torch.no_grad():
                logits = theirs(masked).logits[0, at]
            expected.append(torch.log_softmax(logits, -1)[ids[0, at]].item())
        np.testing.assert_allclose(one.values_N, expected, atol=1e-4, rtol=0)


@pytest.mark.torch
def test_detection_by_transformers(pair: Path) -> None:
    """A sign that makes suspicious texts the best, special tokens in the sum, padding that is seen."""
    import torch
    from transformers import AutoTokenizer, ElectraForPreTraining

    theirs = ElectraForPreTraining.from_pretrained(pair / "hf" / "discriminator").eval()
    words = AutoTokenizer.from_pretrained(pair / "hf" / "discriminator")
    for one in scores(pair / "run"):
        with torch.no_grad():
            logits = theirs(**words(one.text, return_tensors="pt")).logits[0, 1:-1]
        expected = torch.nn.functional.logsigmoid(-logits).numpy()
        np.testing.assert_allclose(one.values_N, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("head", "folder"), [("detection", "discriminator"), ("masked-lm", "generator")]
)
def test_a_workdir_and_its_export_agree(pair: Path, head: str, folder: str) -> None:
    """A generator on the wrong embeddings or head; a precision that is the training's in one of them."""
    same(scores(pair / "run", head), scores(pair / "hf" / folder))


def test_energies_are_scores_as_they_are(pair: Path, tmp_path: Path) -> None:
    """A model of energies taken for a discriminator: its score would be bounded by 0."""
    export = tmp_path / "hf"
    export.symlink_to(pair / "hf" / "discriminator")
    copied = tmp_path / "energies"
    copied.mkdir()
    for file in export.iterdir():
        (copied / file.name).write_bytes(file.read_bytes())
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"electra_jax": {"energy": True}}))
    for found, usual in zip(scores(copied), scores(export), strict=True):
        logit_N = -np.log(np.expm1(-usual.values_N))  # of log sigmoid(-logit)
        np.testing.assert_allclose(found.values_N, logit_N, atol=1e-3, rtol=1e-3)
    with pytest.raises(UserError, match="has no detection head; it has energy"):
        model.read(str(copied), "detection")


def test_electric_gives_minus_its_energies(make_model: Callable[..., Path]) -> None:
    """A run of Electric scored as a discriminator, by its towers or not at all; an export that is scored otherwise."""
    made = make_model("electric", Towers)
    found = exportable.read(made / "run")
    objective = electric.make(None, found.dims, None, 20)
    params = arrays.nest(found.params)
    for one in scores(made / "run"):
        ids = tokenizer.load(made / "run" / "tokenizer").encode(one.text)
        row_1xL = np.array([[2, *ids, 3]], np.int32)
        batch = {"ids": row_1xL, "types": 0 * row_1xL, "docs": 0 * row_1xL + 1}
        energy_L = np.asarray(objective.scores(params, batch))[0, 1:-1]
        np.testing.assert_allclose(one.values_N, -energy_L, atol=0.05, rtol=0.05)  # of bfloat16
    same(scores(made / "run"), scores(made / "hf" / "discriminator"))
    with pytest.raises(UserError, match="has no detection head; it has energy"):
        model.read(str(made / "run"), "detection")
    # Energies taken for logits of detection, to go on with beside a fresh generator.
    with pytest.raises(UserError, match="is Electric's: its logits are energies"):
        hf.import_(made / "hf" / "discriminator", workdir=made / "again")


@pytest.mark.parametrize("head", ["detection", "masked-lm"])
def test_neither_batch_nor_devices_matter(
    pair: Path, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores that go to another text, rows of a batch that see each other, an order by length that is not undone."""
    many = [" ".join(TEXTS[0].split()[: 1 + n % 6]) for n in range(19)] + TEXTS
    together = scores(pair / "run", head, of=many)
    one = meshes.build(meshes.MeshSpec(1, 1), jax.devices()[:1])
    monkeypatch.setattr(meshes, "build", lambda spec: one)
    monkeypatch.setattr(score, "TOKENS", 30)
    monkeypatch.setattr(score, "TOGETHER", 5)
    same(together, scores(pair / "run", head, of=many))
    same(together[-1:], scores(pair / "run", head, of=many[-1:]))


def test_windows_score_every_token_once_with_context(pair: Path) -> None:
    """A token of a long text that is scored twice, never, or at the edge of a window although another has it inside."""
    assert texts.windows([5, 18], 18) == [(0, 0, 5, 0, 5), (1, 0, 18, 0, 18)]
    for length in range(19, 60):
        found = texts.windows([length], 18)
        assert [w.first for w in found] == [0, *(w.last for w in found[:-1])]
        assert found[-1].last == length == found[-1].stop
        for w in found:
            assert w.stop - w.start == 18
            for at in range(w.first, w.last):
                mine = min(
                    at - w.start if w.start else 99, w.stop - 1 - at if w.stop < length else 99
                )
                assert mine >= 3 or length < 22
    long = ["the cat sits on a red mat . " * 5]
    (found,) = scores(pair / "run", of=long)
    words = long[0].split()
    window = texts.windows([len(words)], 18)[1]
    (alone,) = scores(pair / "run", of=[" ".join(words[window.start : window.stop])])
    here = slice(window.first, window.last)
    np.testing.assert_allclose(
        found.values_N[here],
        alone.values_N[window.first - window.start : window.last - window.start],
        atol=2e-5,
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["the cat", " "], "text 2 is empty"),
        (["the cat " * 12], "text 1 has 24 tokens and the model reads 18 at once"),
        (["--head", "energy", "the cat"], "has no energy head; it has detection, masked-lm"),
        (["--head", "energi", "the cat"], "energy"),
        ([], "give what to score in one way"),
        (["--input", "x", "the cat"], "give what to score in one way"),
        (["--word-l2r", "the cat"], "--word-l2r is for masked LMs"),
        (["--step", "3", "the cat"], "there is no step 3"),
    ],
)
def test_refusals(
    pair: Path, arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A score of nothing, of the wrong head, or of a text that was cut without a word."""
    assert main(["score-text", "--model", str(pair / "run"), *arguments]) == 2
    out, err = capsys.readouterr()
    assert expected in err and not out and err.startswith("error: ")


def test_folders_without_a_head(pair: Path, tmp_path: Path) -> None:
    """An encoder alone or no model at all that is met by a trace instead of a line."""
    with pytest.raises(UserError, match="does not exist"):
        model.read(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="did you mean a folder in it: discriminator, generator"):
        model.read(str(pair / "hf"))
    for file in (pair / "hf" / "discriminator").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text()) | {
        "architectures": ["ElectraModel"]
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="has no head that scores texts: it holds ElectraModel"):
        model.read(str(tmp_path))


def test_the_command(pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lines that do not belong together; a score that does not say whether it is a likelihood."""
    file = tmp_path / "texts.txt"
    file.write_text("the cat\r\nA dogged mat\n", encoding="utf-8")
    command = ["score-text", "--model", str(pair / "run"), "--input", str(file)]
    assert main([*command, "--json"]) == 0
    out, err = capsys.readouterr()
    first, second = map(json.loads, out.splitlines())
    assert first["text"] == "the cat" and second["tokens"] == ["a", "dog", "##ged", "mat"]
    assert second["score"] == pytest.approx(sum(second["scores"]))
    assert second["per_token"] == pytest.approx(second["score"] / 4)
    assert "NOT a likelihood" in err and "the discriminator of" in err
    assert main([*command, "--tokens", "--head", "masked-lm"]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[-1] for line in out.splitlines()] == [
        "text", "cat", "the", "cat", "mat", "a", "dog", "##ged", "mat",
    ]  # fmt: skip
    assert "pseudo-log-likelihood in nats" in err and "the generator of" in err
