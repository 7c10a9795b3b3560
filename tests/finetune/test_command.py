"""The command: files in, results out; killed and resumed; predicting; refusing what cannot work."""

import contextlib
import io
import json
import random
import re
import shutil
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from electra_jax import cli, remote
from electra_jax.finetune import loop, program
from electra_jax.finetune.options import options
from electra_jax.finetune.record import Run
from electra_jax.learn import mesh as meshes
from electra_jax.spec import UserError, load_config
from electra_jax.workdir import away

WORDS = {"good": "fine nice great happy warm", "bad": "poor sad cold grim awful"}
SMALL = (
    "model.layers=1",
    "model.width=16",
    "model.heads=2",
    "model.ffn=32",
    "model.embedding=16",
    "model.positions=16",
    "model.init_std=0.3",
    "model.dropout=0.0",
    "optim.peak_lr=3e-3",
    "optim.layer_decay=1.0",
    "train.epochs=4",
    "train.batch=16",
    "train.buckets=1",
    "train.together=no",
    "train.checkpoint_every=3",
    "eval.batch=16",
)


@pytest.fixture(scope="module", autouse=True)
def one_device() -> Iterator[None]:
    """On eight fake devices of a busy machine every step waits for the slowest thread."""
    with pytest.MonkeyPatch.context() as patch:
        build = meshes.build
        patch.setattr(meshes, "build", lambda spec: build(spec, jax.devices()[:1]))
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of a task that a bag of words solves, and a vocabulary for them."""
    folder = tmp_path_factory.mktemp("finetune")
    draw = random.Random(0)
    for name, count in (("train", 80), ("dev", 30)):
        lines = ["sentence\tlabel"]
        for _ in range(count):
            label = draw.choice(list(WORDS))
            words = draw.choices(WORDS[label].split(), k=draw.randrange(2, 9))
            lines.append(f"{' '.join(words)}\t{label}")
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *" ".join(WORDS.values()).split()]
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n")
    return folder


@pytest.fixture(scope="module")
def run(home: Path) -> Callable[..., int]:
    """The command with its usual flags; returns the exit status."""

    def run(workdir: str, *flags: str, overrides: tuple[str, ...] = SMALL) -> int:
        files = [f"--{name}={home / name}.tsv" for name in ("train", "dev")]
        start = ["--init=random", f"--tokenizer={home / 'vocab.txt'}", "--text=sentence"]
        settings = [f"--config.{override}" for override in overrides]
        command = ["finetune", "--config=finetune:classify", f"--workdir={home / workdir}"]
        return cli.main([*command, *files, *start, *settings, *flags])

    return run


@pytest.fixture(scope="module")
def trained(home: Path, run: Callable[..., int]) -> Path:
    """Two seeds, trained; what was said is in ft.log."""
    with contextlib.redirect_stderr(io.StringIO()) as said:
        assert run("ft", "--seeds=2") == 0
    (home / "ft.log").write_text(said.getvalue())
    return home / "ft"


def test_every_seed_is_there_with_what_it_predicts(trained):
    """Catches seeds that are one run twice, scores that are not of the predictions, a summary that is off."""
    results = json.loads((trained / "results.json").read_text())
    runs = results["runs"]
    assert [r["seed"] for r in runs] == [0, 1]
    assert runs[0]["epochs"][0]["loss"] != runs[1]["epochs"][0]["loss"]
    accuracy = [r["scores"]["classify"]["dev"]["accuracy"] for r in runs]
    assert min(accuracy) > 80
    row = next(s for s in results["summary"] if s["metric"] == "accuracy")
    assert row["mean"] == pytest.approx(np.mean(accuracy))
    assert row["std"] == pytest.approx(np.std(accuracy, ddof=1))
    gold = [line.split("\t")[1] for line in (trained.parent / "dev.tsv").read_text().splitlines()]
    said = (trained / "runs/seed0/predictions/dev.tsv").read_text().splitlines()
    right = sum(a == b.split("\t")[1] for a, b in zip(gold[1:], said[1:], strict=True))
    assert 100 * right / 30 == pytest.approx(accuracy[0])
    assert (trained / "ensemble/dev.tsv").exists() and results["ensemble"]["classify"]["dev"]
    assert not (trained / "runs/seed0/checkpoints").exists()


def test_what_one_answer_reaches_stands_beside_the_scores(trained):
    """Catches scores without what always giving the most frequent class reaches, or of another file."""
    results = json.loads((trained / "results.json").read_text())
    gold = [
        line.split("\t")[1] for line in (trained.parent / "dev.tsv").read_text().split("\n")[1:-1]
    ]
    train = (trained.parent / "train.tsv").read_text()
    most = max(sorted(WORDS), key=lambda label: train.count(f"\t{label}\n"))
    one = results["majority"]["classify"]
    assert one["answer"] == most
    share = 100 * gold.count(most) / len(gold)
    assert one["scores"]["dev"]["accuracy"] == pytest.approx(share)
    table = (trained / "results.md").read_text()
    assert f"| majority | - | - | {share:.2f} | - |" in table and f"(classify: {most!r})" in table
    assert f"| dev | accuracy | {share:.2f} |" in table and "no better" not in table


def test_what_is_compiled_is_said(trained):
    """Catches a minute of silence, a count that is off, or a program compiled again for each seed."""
    said = [
        line for line in (trained.parent / "ft.log").read_text().splitlines() if "compil" in line
    ]
    assert said[0].startswith("up to 2 programs are compiled")
    assert [line.split(": ")[0] for line in said[1:]] == [
        "compiling program 1 of up to 2",
        "compiling program 2 of up to 2",
    ]
    assert "training" in said[1] and "prediction, rows of" in said[2]


def test_reports_as_pretraining_does(trained, tmp_path, monkeypatch):
    """Catches section `report` left unread: no TensorBoard events, no Weights & Biases run."""
    assert list((trained / "runs/seed0/tensorboard").glob("events*"))
    given = []
    run = types.SimpleNamespace(log=lambda *a, **k: None, finish=lambda exit_code: None)
    fake = types.SimpleNamespace(init=lambda **asked: given.append(asked) or run)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    overrides = ["report.wandb=us", "report.tensorboard=False"]
    asked = options(load_config("finetune:sst2", overrides))
    plan = types.SimpleNamespace(options=asked, schedule=types.SimpleNamespace(steps=3))
    group = loop.Group("seed4", (Run("seed4", 4, 1e-4),))
    with loop._report(plan, group, tmp_path, 0):
        pass
    assert given[0]["project"] == "us" and given[0]["config"]["runs"][0]["seed"] == 4
    assert not (tmp_path / "tensorboard").exists()


def test_a_workdir_of_an_earlier_version_goes_on(trained, home):
    """Catches a config without section `report`, or a record without the majority, refused."""
    old = home / "old"
    shutil.copytree(trained, old)
    record = json.loads((old / "finetune.json").read_text())
    del record["config"]["report"], record["majority"]
    (old / "finetune.json").write_text(json.dumps(record))
    (old / "results.json").unlink()
    assert cli.main(["finetune", f"--workdir={old}", "--config.report.tensorboard=False"]) == 0
    assert json.loads((old / "results.json").read_text())["majority"]["classify"]["scores"]["dev"]


def test_a_run_whose_texts_were_cut_at_the_positions_goes_on(trained, home):
    """Catches a run begun with a `data.max_len` that is refused today, and so never ended."""
    shutil.copytree(trained, home / "long")
    record = home / "long/finetune.json"
    found = json.loads(record.read_text())
    found["config"]["data"]["max_len"] = 100  # of 16 positions
    record.write_text(json.dumps(found))
    assert cli.main(["finetune", f"--workdir={home / 'long'}"]) == 0


def test_probabilities_on_request(trained, home, capsys):
    """Catches columns of other classes than they say, shares that are logits, a score without majority."""
    output = home / "shares.tsv"
    arguments = [f"--workdir={trained}", f"--input={home / 'dev.tsv'}", f"--output={output}"]
    assert cli.main(["predict", *arguments, "--probabilities"]) == 0
    assert "majority" in json.loads(capsys.readouterr().out.partition("\n")[2])
    head, *lines = [line.split("\t") for line in output.read_text().splitlines()]
    assert head == ["index", "prediction", "p_bad", "p_good"]
    for _, said, bad, good in lines:
        assert float(bad) + float(good) == pytest.approx(1, abs=2e-6)
        assert said == ("bad" if float(bad) > float(good) else "good")


@pytest.mark.slow
def test_everything_on_a_bucket(trained, home, either_bucket, monkeypatch, capsys):
    """Catches data that are not read there, a workdir that is a local folder or lost with a killed machine, results
    that differ from those on a disk, and what is left behind of checkpoints that are done with."""
    for name in ("train.tsv", "dev.tsv", "vocab.txt"):
        remote.write(f"{either_bucket}/in/{name}", (home / name).read_bytes())
    monkeypatch.setattr(away, "SEND_S", 0.05)
    step, steps = program.Program.step, iter(range(8))

    def dies(self, *arguments):
        if (at := next(steps, None)) is None:
            raise KeyboardInterrupt
        if at == 7:  # by then the checkpoint of step 6 has to be on its way
            deadline = time.monotonic() + 60
            while not any(name.endswith("6/commit_success.txt") for name in remote.sizes(url)):
                assert time.monotonic() < deadline
                time.sleep(0.05)
        return step(self, *arguments)

    url, data = f"{either_bucket}/ft", f"{either_bucket}/in"
    flags = [f"--{name}={data}/{name}.tsv" for name in ("train", "dev")]
    flags += ["--init=random", f"--tokenizer={data}/vocab.txt", "--text=sentence", "--seeds=2"]
    settings = [f"--config.{override}" for override in SMALL]
    with monkeypatch.context() as patch:
        patch.setattr(program.Program, "step", dies)
        config = ["--config=finetune:classify", f"--workdir={url}"]
        assert cli.main(["finetune", *config, *flags, *settings]) == 130
    assert "ft/results.json" not in remote.sizes(url)
    assert cli.main(["finetune", f"--workdir={url}"]) == 0
    assert "going on after step 6" in capsys.readouterr().err
    there, here = (
        json.loads(x)
        for x in (remote.read(f"{url}/results.json"), (trained / "results.json").read_text())
    )
    for one, other in zip(there["runs"], here["runs"], strict=True):
        assert one["scores"] == other["scores"]
    config = json.loads(remote.read(f"{url}/finetune.json"))["config"]
    assert config["data"]["train"] == f"{data}/train.tsv"
    left = [n for n in remote.sizes(url) if "checkpoints" in n or "best" in n or "/." in n]
    assert left == [], left
    output = f"{either_bucket}/predictions.tsv"
    command = ["predict", f"--workdir={url}", f"--input={data}/dev.tsv", f"--output={output}"]
    assert cli.main(command) == 0
    expected = (trained / "runs/seed0/predictions/dev.tsv").read_bytes()
    assert remote.read(output) == expected or there["runs"][1]["score"] > there["runs"][0]["score"]


@pytest.mark.slow
def test_a_killed_run_ends_as_if_it_had_not_been(trained, home, run, monkeypatch):
    """Catches an order, a schedule or moments that a resumed run does not take up again."""
    step = program.Program.step
    left = iter(range(8))  # of 20 steps, with a checkpoint after the sixth

    def dies(self, *arguments):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return step(self, *arguments)

    monkeypatch.setattr(program.Program, "step", dies)
    assert run("killed") == 130
    monkeypatch.undo()
    assert not (home / "killed/results.json").exists()
    assert cli.main(["finetune", f"--workdir={home / 'killed'}"]) == 0
    ends = [
        (folder / "runs/seed0/params.safetensors").read_bytes()
        for folder in (trained, home / "killed")
    ]
    assert ends[0] == ends[1]
    lines = (home / "killed/runs/seed0/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines if '"dev"' in line] == [5, 10, 15, 20]


def test_predicting_dev_gives_the_predictions_of_dev(trained, home, capsys):
    """Catches other parameters, another order or another vocabulary than those of training."""
    output = home / "predicted.tsv"
    results = json.loads((trained / "results.json").read_text())
    best = max(results["runs"], key=lambda r: r["score"])
    arguments = ["predict", f"--workdir={trained}", f"--input={home / 'dev.tsv'}"]
    assert cli.main([*arguments, f"--output={output}"]) == 0
    assert (
        output.read_text() == (trained / "runs" / best["name"] / "predictions/dev.tsv").read_text()
    )
    assert '"accuracy"' in capsys.readouterr().out
    assert cli.main([*arguments, f"--output={output}"]) == 2
    assert "already exists" in capsys.readouterr().err


def test_a_finished_workdir_is_left_alone_and_another_config_refused(trained, run, capsys):
    """Catches a second start that trains again, or one with another rate that silently does not."""
    before = (trained / "runs/seed0/result.json").stat().st_mtime_ns
    assert run("ft", "--seeds=2") == 0
    assert (trained / "runs/seed0/result.json").stat().st_mtime_ns == before
    assert run("ft", "--seeds=2", "--config.optim.layer_decay=0.5") == 2
    assert "optim.layer_decay: was 1.0, now 0.5" in capsys.readouterr().err


@pytest.mark.slow
def test_a_sweep_in_one_program_with_the_best_epochs(home, run):
    """Catches a run that stops with its neighbour, parameters of another epoch or run, a wrong best rate."""
    settings = ("together=yes", "select=best", "patience=1")
    flags = [f"--config.train.{setting}" for setting in settings]
    assert run("sweep", "--sweep=1e-9,3e-3", *flags) == 0
    results = json.loads((home / "sweep/results.json").read_text())
    slow, fast = results["runs"]
    assert [r["name"] for r in results["runs"]] == ["lr1e-09-seed0", "lr0.003-seed0"]
    assert len(slow["epochs"]) == 2 and slow["selected_step"] == 5
    assert fast["score"] == max(e["score"] for e in fast["epochs"]) > slow["score"]
    assert fast["scores"]["classify"]["dev"]["accuracy"] == fast["score"]
    assert results["best_lr"] == 3e-3
    assert json.loads((home / "sweep/finetune.json").read_text())["together"] is True
    told = (home / "sweep/runs/together/metrics.jsonl").read_text()
    assert '"lr1e-09-seed0/dev"' in told and not (home / "sweep/runs/together/checkpoints").exists()


def test_a_recipe_of_pretraining_is_told_apart(tmp_path, capsys):
    """Catches "unknown config section 'objective'", of which nobody learns which config to take."""
    assert cli.main(["finetune", "--config", "tiny", "--workdir", str(tmp_path / "ft")]) == 2
    assert (
        "is a recipe of pretrain; fine-tuning takes --config finetune:TASK"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--config=finetune:clasify",), "Did you mean 'classify'"),
        (("--train=no.tsv",), "does not exist"),
        (("--config=finetune:sst2",), "task sst2 knows its columns; leave data.text out"),
        (("--text=sentense",), "Did you mean 'sentence'"),
        (("--init=nowhere",), "--init nowhere does not exist"),
        (("--config.mesh.data=2",), "does not fit 1 device"),
        (("--config.optim.frozen_layers=2",), "the encoder has 1 layers"),
        (("--config.data.labels=good,other",), "unknown label 'bad'"),
        (("--sweep=0",), "must be above 0"),
        (("--config.data.labels=0,1",), "Labels: 0, 1"),
        (("--config.data.positive=1",), "data.positive: unknown label '1'"),
        (("--config.data.max_len=64",), "data.max_len=64 is out of range; it must be in [8, 16]"),
        (("--config.data.labels=good,bad,good",), "two or more, each once"),
        (("--config.model.init_std=-1",), "must be above 0"),
        (("--config.train.epochs=1e9",), "a run has at most 10,000,000"),
    ],
)
def test_mistakes_are_refused_before_training(home, run, capsys, flags, said):
    """Catches a mistake that is only found after minutes, or as a traceback."""
    assert run("refused", *flags) == 2
    assert said in capsys.readouterr().err
    assert not (home / "refused/runs").exists()


def test_a_column_of_another_kind_is_told(home, run, capsys):
    """Catches an option that a kind makes no use of, passed over without a word."""
    assert run("refused", "--config.data.words=1", "--config.optim.frozen_layers=2") == 2
    assert "task classify makes no use of data.words; it has text, pair" in capsys.readouterr().err


def test_a_tokenizer_that_knows_no_word_is_told(home, run, capsys):
    """Catches the tokenizer of another model taken silently, whose every word is unknown."""
    (home / "empty.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    wrong = ("--config.optim.frozen_layers=2",)  # ends the command once the data have been read
    assert run("refused", *wrong) == 2
    assert "unknown to the encoder" not in capsys.readouterr().err
    assert run("refused", f"--tokenizer={home / 'empty.txt'}", *wrong) == 2
    assert "of the training tokens are unknown to the encoder" in capsys.readouterr().err


def test_pairs_need_an_encoder_with_two_types():
    """Catches fine-tuning that computes NaN, its second texts looked up where the encoder has nothing."""
    from electra_jax.finetune import plan

    rows = types.SimpleNamespace(types=np.array([0, 1]))
    split = types.SimpleNamespace(rows=types.SimpleNamespace(types=np.array([0, 0])))
    with pytest.raises(UserError, match="has pairs of texts, and this encoder has one type"):
        plan.check_types("pairs", 1, rows, {"dev": split})
    plan.check_types("pairs", 2, rows, {"dev": split})
    plan.check_types("texts", 1, split.rows, {"dev": split})


def test_recipes_follow_the_width():
    """Catches a model that trains with another size's learning rate (Table 7 of the paper)."""
    from electra_jax.finetune.options import DECAYS, RATES, by_width

    sizes = (256, 768, 1024)
    assert [by_width(RATES, width) for width in sizes] == [3e-4, 1e-4, 5e-5]
    assert [by_width(DECAYS, width) for width in sizes] == [0.8, 0.8, 0.9]
    config = load_config("finetune:sst2")
    assert options(config).optim.weight_decay == 0 and options(config).optim.warmup == 0.1
    with pytest.raises(UserError, match="optim.warmup"):
        options(load_config("finetune:sst2", ["optim.warmup=2.0"]))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optim.beta1=1", "in [0, 1)"),
        ("optim.beta2=-0.1", "in [0, 1)"),
        ("optim.eps=0", "above 0"),
        ("optim.peak_lr=-1e-4", "at least 0"),
        ("optim.weight_decay=-0.1", "at least 0"),
        ("optim.clip_norm=0", "above 0"),
        ("optim.lr_power=-1", "at least 0"),
        ("optim.layer_decay=1.1", "in (0, 1]"),
        ("optim.frozen_layers=-2", "at least -1"),
        ("head.dropout=1", "in [0, 1)"),
        ("head.answerable_weight=-1", "at least 0"),
        ("head.beam=0", "at least 1"),
        ("train.task_power=-1", "at least 0"),
        ("train.seed=99999999999999999999", "in [0, 4294967295]"),
        ("data.max_len=-1", "at least 8"),
        ("data.doc_stride=0", "at least 1"),
        ("data.max_question=-4", "at least 1"),
    ],
)
def test_values_that_cannot_be_meant(override, said):
    """Catches a run with negative weights, moments that never forget, or a seed that overflows."""
    from electra_jax.finetune.options import TYPES, DataOptions, options

    key = override.partition("=")[0]
    with pytest.raises(UserError, match=f"{key}=.* is out of range; it must be {re.escape(said)}"):
        DataOptions.of(options(load_config("finetune:sst2", [override], TYPES)).data)


def test_the_last_seed_counts():
    """Catches seeds that count up beyond what the random numbers take."""
    from electra_jax.finetune.options import TYPES, options

    seeds = ["train.seed=4294967295", "train.seeds=2"]
    assert options(load_config("finetune:sst2", seeds[:1], TYPES)).train.seed == 2**32 - 1
    with pytest.raises(UserError, match=r"train\.seed \+ train\.seeds - 1=4294967296"):
        options(load_config("finetune:sst2", seeds, TYPES))


def test_predict_reads_as_the_test_split_does():
    """Catches a later predict that takes other labels for labels, or scores with other metrics."""
    from electra_jax.finetune import plan, predict
    from electra_jax.finetune.options import DataOptions

    asked = DataOptions.of(load_config("finetune:tag").data)
    task = predict.task_of(plan.choose("tag", asked), ("NOUN", "VERB"))
    assert task.labels == ("NOUN", "VERB") and task.metrics == ("token_accuracy",)
    task = predict.task_of(plan.choose("regress", asked), ())
    assert task.score_range is None  # 1.5 is a label, too
