"""doctor on logs of real runs, broken on purpose or not (broken.py made them), and on lines made by hand."""

import functools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from electra_jax import cli
from electra_jax.doctor import curves, diagnosis, history, sketch, watch
from electra_jax.doctor import run as runs
from electra_jax.doctor.diagnosis import Diagnosis
from electra_jax.doctor.finding import Finding, Verdict
from electra_jax.doctor.signs.vocabulary import Vocabulary
from electra_jax.spec import UserError

LOGS = Path(__file__).parent / "logs"
ROOT = Path(__file__).resolve().parents[2]
BAD = {
    "rate": {"plateau", "discriminator"},
    "generator": {"generator"},
    "labels": {"discriminator"},
    "copies": {"repetition"},
    "vocabulary": {"vocabulary"},
}
Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def workdir(tmp_path: Path) -> Callable[..., Path]:
    """workdir(name, change=..., step=...): a workdir with a kept log, its content changed, up to a step."""

    def make(name: str, change: Change | None = None, step: int | None = None) -> Path:
        found = json.loads((LOGS / f"{name}.json").read_text())
        if change is not None:
            change(found)
        data, folder = tmp_path / "data", tmp_path / "run"
        for place in (data, folder):
            place.mkdir(exist_ok=True)
        fingerprint = json.dumps(found["fingerprint"])
        (data / "fingerprint.json").write_text(fingerprint)
        record = found["record"]
        record["config"]["data"]["path"] = str(data)
        record["data"]["fingerprint"] = runs.hashlib.sha256(fingerprint.encode()).hexdigest()
        (folder / "config.json").write_text(json.dumps(record))
        write(folder, [x for x in found["lines"] if step is None or x["step"] <= step])
        return folder

    return make


def write(folder: Path, lines: list[dict[str, Any]]) -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def diagnosed(folder: Path) -> Diagnosis:
    return diagnosis.diagnose(runs.opened(folder))


def sign(folder: Path, name: str) -> Finding | None:
    return next((one for one in diagnosed(folder).findings if one.sign == name), None)


def lines_of(found: dict[str, Any], split: str) -> list[dict[str, Any]]:
    return [line for line in found["lines"] if line["split"] == split]


@pytest.mark.parametrize("name", BAD)
def test_a_broken_run_is_seen_and_its_fault_named(name, workdir):
    """Catches a sign that is blind to the fault it is for, and one that names no setting."""
    found = diagnosed(workdir(name))
    assert found.summary.startswith("not learning: ")
    assert BAD[name] <= {one.sign for one in found.bad}
    assert all("--config." in one.change or "prepare" in one.change for one in found.bad)


def test_the_first_advice_is_the_fault(workdir):
    """Catches advice that sends the user elsewhere: the rate, the generator's size, the labels, the text."""
    expected = {
        ("rate", "plateau"): "--config.optim.peak_lr=0.04",
        ("generator", "generator"): "--config.model.tying=embeddings",
        ("labels", "discriminator"): "check the labels",
        ("copies", "repetition"): "--dedup",
        ("vocabulary", "vocabulary"): "electra-jax vocab",
    }
    for (name, which), advice in expected.items():
        finding = sign(workdir(name), which)
        assert finding is not None and advice in finding.change.partition(";")[0], name


@pytest.mark.parametrize("name", ["well", "tour"])
def test_a_healthy_run_is_never_called_ill(name, workdir):
    """Catches thresholds that a good run crosses on its way, at any of its evaluations."""
    steps = [
        line["step"] for line in lines_of(json.loads((LOGS / f"{name}.json").read_text()), "valid")
    ]
    said = [diagnosed(workdir(name, step=step)).summary for step in steps]
    assert said[0] == "too early to say" and said[-1] == "learning"
    assert set(said) == {"too early to say", "learning"}


def test_a_run_that_has_just_begun(workdir):
    """Catches a verdict, or an error, before there is anything to judge: no log, no line, a line that is torn."""
    folder = workdir("rate", step=-1)
    assert diagnosed(folder).summary == "too early to say"
    (folder / "metrics.jsonl").write_text('{"step": 25, "split": "tra')
    assert diagnosed(folder).summary == "too early to say"
    (folder / "metrics.jsonl").unlink()
    assert diagnosed(folder).summary == "too early to say"


def test_a_masked_lm_is_judged_by_what_it_has(workdir):
    """Catches a sign of the discriminator in a run without one, and a masked LM called ill for being good."""

    def masked(found: dict[str, Any]) -> None:
        for line in found["lines"]:
            for key in [
                key for key in line if key.startswith("disc_") or key == "replaced_fraction"
            ]:
                del line[key]

    found = diagnosed(workdir("well", masked))
    assert not {"discriminator", "generator"} & {one.sign for one in found.findings}
    assert found.summary == "learning"
    assert diagnosed(workdir("generator", masked)).summary == "learning"


@pytest.mark.parametrize(("last", "summary"), [(9.0, "learning"), (14.0, "not learning: loss")])
def test_an_objective_of_ones_own(last, summary, workdir):
    """Catches a user's objective that is not judged, or by metrics it does not have."""

    def own(found: dict[str, Any]) -> None:
        valid = lines_of(found, "valid")
        for line in found["lines"]:
            for key in [key for key in line if key.startswith(("disc_", "mlm_", "sampled", "gen"))]:
                del line[key]
        valid[-1]["loss"] = last
        del valid[0]["replaced_fraction"]

    assert diagnosed(workdir("well", own)).summary == summary


def test_on_the_plateau(workdir):
    """Catches a plateau that is called late before others had left it, or not at all, or never in long rows."""

    def stuck(found: dict[str, Any], steps: int) -> None:
        for line in found["lines"]:
            line["mlm_loss"] = max(line["mlm_loss"], 4.95)
        found["record"]["config"]["train"]["steps"] = 100_000
        for line in found["lines"][-2:]:
            line["step"] = steps

    for steps, verdict in ((2_800, Verdict.EARLY), (3_100, Verdict.BAD)):
        change = functools.partial(stuck, steps=steps)
        assert sign(workdir("well", change), "plateau").verdict is verdict

    def long(found: dict[str, Any], family: str, steps: int) -> None:
        stuck(found, steps)
        found["record"]["data"]["seq_len"] = 128
        found["record"]["config"]["model"]["family"] = family

    cases = (("electra", 2_900, "early"), ("modern", 1_300, "early"), ("modern", 2_900, "bad"))
    for family, steps, verdict in cases:
        change = functools.partial(long, family=family, steps=steps)
        finding = sign(workdir("well", change), "plateau")
        assert finding.verdict.value == verdict, family
        assert ("model.family=modern" in finding.change) == (
            family == "electra" and verdict == "bad"
        )


def test_what_is_not_finite(workdir):
    """Catches a diverged run that passes because null is no number."""

    def diverged(found: dict[str, Any]) -> None:
        lines_of(found, "valid")[-1].update(mlm_loss=None, disc_auc=None, loss=None)
        lines_of(found, "train")[-1].update(skipped=40, loss=None)

    found = diagnosed(workdir("well", diverged))
    assert {"plateau", "skipped"} <= {one.sign for one in found.bad}


def test_losses_that_jump_and_climb(workdir):
    """Catches a spike that is not seen, one that is taken for a divergence, and a divergence taken for spikes."""

    def jump(found: dict[str, Any]) -> None:
        lines_of(found, "train")[40]["loss"] = 20.0

    def climb(found: dict[str, Any]) -> None:
        for line in lines_of(found, "train")[40:]:
            line.update(loss=14.0, grad_norm=90.0)

    finding = sign(workdir("well", jump), "spikes")
    assert finding.verdict is Verdict.NOTE and "1,025" in finding.text
    assert {"spikes", "gradient"} <= {one.sign for one in diagnosed(workdir("well", climb)).bad}
    assert sign(workdir("well"), "spikes").verdict is Verdict.OK


def test_a_weak_generator_a_dead_rate_and_slow_data(workdir):
    """Catches replacements that counting finds, a schedule that ended long ago, and waiting for rows."""

    def three(found: dict[str, Any]) -> None:
        lines_of(found, "valid")[-1]["disc_auc_unigram"] = 0.9
        for line in lines_of(found, "train")[30:]:
            line["learning_rate"] = 0.0
        for line in lines_of(found, "train"):
            line["data_wait"] = 0.4

    folder = workdir("well", three)
    verdicts = {one.sign: one.verdict.value for one in diagnosed(folder).findings}
    expected = {"generator": "bad", "rate": "bad", "data": "note", "discriminator": "note"}
    assert verdicts | expected == verdicts


def test_words_that_fall_into_letters(workdir):
    """Catches a vocabulary of another language that can spell everything, and Chinese taken for such text."""

    def spelt(found: dict[str, Any], chinese: int) -> None:
        counts = found["fingerprint"]["counts"]["train"]
        counts.update(tokens=counts["characters"], unknown_tokens=0, unknown_characters=0)
        counts["chinese_tokens"] = chinese * counts["tokens"]

    for chinese, verdict in ((0, Verdict.BAD), (1, Verdict.OK)):
        run = runs.opened(workdir("well", functools.partial(spelt, chinese=chinese)))
        assert Vocabulary().look(run).verdict is verdict


def test_data_that_are_gone_or_others(workdir):
    """Catches a run that cannot be judged without its data, and counts of data that it was not trained on."""
    folder = workdir("vocabulary")
    fingerprint = folder.parent / "data" / "fingerprint.json"
    fingerprint.write_text(fingerprint.read_text() + " ")
    assert sign(folder, "vocabulary") is None
    fingerprint.unlink()
    assert sign(folder, "vocabulary") is None


def test_tokens_of_phases(workdir):
    """Catches tokens and passes counted by the batch of another phase."""

    def phases(found: dict[str, Any]) -> None:
        found["record"]["config"]["train"].update(
            steps=200, phases=[{"steps": 100, "batch": 64}, {"steps": 100}]
        )

    run = runs.opened(workdir("well", phases))
    assert run.tokens(150) == (100 * 64 + 50 * 32) * 32
    assert run.stretches[1] == runs.Stretch(100, 200, 32, 32)


def test_the_history_is_read_on_and_stays_small(tmp_path, monkeypatch):
    """Catches lines read twice or lost between two looks, a log begun anew, and memory that grows with the run."""
    monkeypatch.setattr(history, "MOST", 10)
    found = history.History(tmp_path)
    found.read_on()
    assert found.last_step == 0
    with open(tmp_path / "metrics.jsonl", "a") as log:
        for step in range(1, 31):
            log.write(json.dumps({"step": step, "split": "train", "loss": 1.0}) + "\n")
            log.write('{"step"')
            log.flush()
            found.read_on()
            log.seek(log.tell() - 7)
            log.truncate()
    assert found.last_step == 30
    steps = [line["step"] for line in found.train]
    assert len(steps) <= 10 and steps == sorted(set(steps)) and steps[-5:] == [*range(26, 31)]
    write(tmp_path, [{"step": 1, "split": "train"}, {"step": 2, "split": "train"}])
    found.read_on()
    assert [line["step"] for line in found.train] == [1, 2]


def test_the_nearest_curve(workdir):
    """Catches a run held beside one of another size, and figures that are not those of its tokens."""
    sizes = {"row": 32.0, "batch": 32.0, "width": 64.0, "vocabulary": 1024.0}
    near = curves.nearest(sizes, modern=False)
    assert near.name == "electra-quickstart" and near.at(1.536e6, "mlm_loss") == 4.537
    assert 4.537 < near.at(1.4e6, "mlm_loss") < 4.681 and near.at(9e9, "mlm_loss") == 4.175
    assert curves.nearest(sizes, modern=True).name == "quickstart"
    assert curves.nearest(sizes | {"width": 1024.0}, modern=False) is None
    larger = sizes | {"width": 128.0, "vocabulary": 4096.0}
    assert curves.nearest(larger, modern=False).name == "electra-mini"
    assert all(curve.points and curve.source and curve.licence for curve in curves.shipped())
    assert sign(workdir("well"), "reference").verdict is Verdict.OK
    for step, verdict in ((250, Verdict.EARLY), (800, Verdict.NOTE)):
        finding = sign(workdir("rate", step=step), "reference")
        assert finding.verdict is verdict and "nats above counting tokens" in finding.text


def test_a_reference_that_was_on_the_plateau_itself(workdir):
    """Catches `ok` for a run on the plateau because the curve had not left it by these tokens either."""

    def slightly_above(found: dict[str, Any]) -> None:
        lines_of(found, "valid")[-1]["mlm_loss"] = 5.1

    finding = sign(workdir("rate", slightly_above), "reference")
    assert finding.verdict is Verdict.EARLY and finding.text.startswith("too early to compare")


def test_a_cloze_model_has_no_generator(workdir):
    """Catches a share of noise that is taken for replacements by a generator."""

    def cloze(found: dict[str, Any]) -> None:
        for line in lines_of(found, "valid"):
            line.update(energy_text=1.0, energy_noise=2.0)

    assert sign(workdir("generator"), "generator").verdict is Verdict.BAD
    assert sign(workdir("generator", cloze), "generator") is None


def test_curves_as_text():
    """Catches bars upside down, a last evaluation that is not drawn, and a division by a flat curve."""
    lines = [{"step": i, "mlm_loss": 7.0 - i, "disc_auc": 0.5} for i in range(3)]
    assert sketch.curves(lines) == ["mlm_loss  7 █▅▁ 5", "disc_auc  0.5 ▁▁▁ 0.5"]
    assert sketch.curves([{"loss": 1.0}, {"loss": 2.0}]) == ["loss  1 ▁█ 2"]
    assert sketch.curves(lines[:1]) == sketch.curves([]) == []
    drawn = sketch.drawing([*range(999), 5_000.0])
    assert drawn.endswith("█ 5000") and drawn.count("█") == 1 and len(drawn) < 80


def test_once_a_sign(workdir):
    """Catches a line that is said at every evaluation, by every start, or never."""
    folder = workdir("rate", step=250)
    log = json.loads((LOGS / "rate.json").read_text())["lines"]
    observer = watch.Watch(folder, "my run")
    said = []
    for step in (250, 500, 750, 800):
        write(folder, [line for line in log if line["step"] <= step])
        said += observer.look()
    assert [line.split(":")[1].strip() for line in said] == ["plateau", "discriminator"]
    assert all(line.endswith("electra-jax doctor 'my run' says more") for line in said)
    assert watch.Watch(folder, "my run").look() == []


def test_what_was_bad_before_the_first_step(workdir):
    """Catches a vocabulary that is never said to be bad because it was so when the run began."""
    folder = workdir("vocabulary", step=-1)
    observer = watch.Watch(folder, "run")
    write(folder, json.loads((LOGS / "vocabulary.json").read_text())["lines"][:1])
    assert [line.split(":")[1].strip() for line in observer.look()] == ["vocabulary"]


def test_the_observer_never_ends_a_run(workdir, monkeypatch):
    """Catches an error of doctor's that costs a run its training, or that is said at every evaluation."""

    def broken(_run: object) -> Diagnosis:
        raise ZeroDivisionError("no")

    observer = watch.Watch(workdir("well"), "run")
    monkeypatch.setattr(diagnosis, "diagnose", broken)
    assert observer.look() == ["doctor: cannot look at this run: ZeroDivisionError('no')"]
    assert observer.look() == []


def test_the_command(workdir, capsys):
    """Catches an exit status that is not the verdict's, JSON that is none, and a setting that is not printed."""
    assert cli.main(["doctor", str(workdir("well", step=250))]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "too early to say"
    assert cli.main(["doctor", str(workdir("well"))]) == 0
    printed = capsys.readouterr().out
    assert "\nmlm_loss  7.024 █" in printed and printed.splitlines()[-1] == "learning"
    folder = str(workdir("rate"))
    assert cli.main(["doctor", folder]) == 1
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].startswith(f"{folder}: step 800 of 800, 0.82 million tokens")
    assert "-> lower the learning rate: --config.optim.peak_lr=0.04 (it is 0.4)" in printed
    assert printed.splitlines()[-1].startswith("not learning: ")
    assert cli.main(["doctor", folder, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["summary"].startswith("not learning") and found["step"] == 800
    plateau = found["findings"][0]
    assert plateau["verdict"] == "bad" and plateau["figures"]["mlm_loss_unigram"] > 4


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ((), "is not a workdir: it has no config.json"),
        (("finetune.json",), "is fine-tuned; doctor reads workdirs of pretraining"),
    ],
)
def test_what_is_no_run(left, said, tmp_path, capsys):
    """Catches a traceback, or the wrong reason, for a folder of something else."""
    for name in left:
        (tmp_path / name).write_text("{}")
    assert cli.main(["doctor", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found["record"]["config"].pop("optim"),
        lambda found: found["record"]["config"]["train"].update(batch="32"),
        lambda found: found["record"]["config"]["optim"].update(peak_lr=None),
    ],
)
def test_a_damaged_record_is_one_line(change, workdir):
    """Catches a traceback for a config.json that a hand has changed."""
    with pytest.raises(UserError, match="damaged"):
        runs.opened(workdir("well", change))


def test_no_jax_is_loaded():
    """Catches an import that makes a look at a run wait for seconds, or need a device."""
    code = (
        "import sys, electra_jax.doctor.command, electra_jax.doctor.watch\n"
        "print(*sorted({'jax', 'flax', 'numpy', 'orbax'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == []
