"""What the launch scripts share: how options are spelled, what travels to the hosts, programs that are missing."""

import os
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VM = ("--name", "e", "--zone", "us-east5-a", "--type", "v6e-8")
RUN = ("--workdir", "gs://bucket/run")
SECRET = "sesame-open"
SCRIPTS = [("tpu.sh", VM), ("gce.sh", VM), ("gke.sh", ("--type", "v6e-8"))]
IDS = [script for script, _ in SCRIPTS]


def _with_a_twin(flags):
    """Each option and its value as one word."""
    return [f"{name}={value}" for name, value in zip(flags[::2], flags[1::2], strict=True)]


@pytest.mark.parametrize(("script", "flags"), SCRIPTS, ids=IDS)
def test_options_may_be_spelled_with_an_equals_sign(world, script, flags):
    """Catches --name=VALUE taken for an unknown option, and a flag for gcloud torn apart at its own sign."""
    more = [] if script == "gke.sh" else ["--create-flag", "--labels=a=b"]
    apart = world.run(script, "run", *flags, *more, "--dry-run", "--", *RUN)
    more = [] if script == "gke.sh" else ["--create-flag=--labels=a=b"]
    together = world.run(script, "run", *_with_a_twin(flags), *more, "--dry-run", "--", *RUN)
    assert apart.returncode == 0, apart.stdout
    assert apart.stdout == together.stdout
    assert script == "gke.sh" or " --labels=a=b" in apart.stdout


@pytest.mark.parametrize(("script", "flags"), SCRIPTS, ids=IDS)
def test_the_program_is_given_its_variables(world, script, flags):
    """Catches a cache folder or a key that does not reach the hosts, a value changed on its way, a folder of here."""
    given = {
        "ELECTRA_JAX_CACHE": "/mnt/cache",
        "JAX_COMPILATION_CACHE_DIR": "gs://bucket/xla",
        "WANDB_API_KEY": SECRET,
        "HF_TOKEN": SECRET,
        "HF_HOME": "/home/me",
        "MY_OTHER": "not asked for",
        "MY_OWN": "from here",
    }
    env = ("--env", "MY_WORDS=a $b 'c'", "--env=MY_OWN", "--env", "HF_TOKEN=stronger")
    world.program(0)
    done = world.run(script, "run", *flags, *env, "--", *RUN, **given)
    assert done.returncode == 0, done.stdout
    got = dict(line.split("=", 1) for line in world.lines("environment"))
    want = given | {"MY_WORDS": "a $b 'c'", "HF_TOKEN": "stronger"}
    del want["HF_HOME"], want["MY_OTHER"]
    assert got == want
    assert (
        SECRET not in done.stdout + "".join(world.lines("calls")) and "stronger" not in done.stdout
    )


@pytest.mark.parametrize(("script", "flags"), SCRIPTS, ids=IDS)
def test_a_dry_run_tells_no_secret(world, script, flags):
    """Catches a key on the screen, in a log or in a list of processes."""
    dry = world.run(
        script, "run", *flags, "--env=MY_KEY=open-sesame", "--dry-run", "--", *RUN, HF_TOKEN=SECRET
    )
    assert dry.returncode == 0, dry.stdout
    assert "HF_TOKEN MY_KEY" in dry.stdout
    assert SECRET not in dry.stdout and "open-sesame" not in dry.stdout


def test_variables_of_an_earlier_start_are_forgotten(world):
    """Catches a key that stays on a machine after its user took it back."""
    world.program(75, 0)
    world.run("tpu.sh", "run", *VM, "--env=MY_KEY=1", "--max-restarts=0", "--", *RUN)
    (path,) = world.state.glob("hosts/e/0/.electra_jax/environment")
    assert path.stat().st_mode & 0o077 == 0
    assert world.run("tpu.sh", "run", *VM, "--", *RUN).returncode == 0
    assert not path.exists()
    assert not any(line.startswith("MY_KEY") for line in world.lines("environment"))


@pytest.mark.parametrize(
    ("script", "flags", "missing"),
    [
        ("tpu.sh", VM, "gcloud"),
        ("gce.sh", VM, "gcloud"),
        ("gke.sh", ("--type", "v6e-8"), "kubectl"),
    ],
)
def test_a_program_that_is_missing_is_named(world, tmp_path, script, flags, missing):
    """Catches "command not found" three times over, half an hour apart."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("bash", "dirname", "basename", "sed", "mktemp", "cat", "grep"):
        (tools / tool).symlink_to(
            next(p for p in (Path("/usr/bin") / tool, Path("/bin") / tool) if p.exists())
        )
    done = world.run(script, "run", *flags, "--", *RUN, PATH=str(tools))
    assert done.returncode == 2
    assert done.stdout.startswith(f"error: {missing} is not installed")
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("script", ["tpu.sh", "gce.sh"])
def test_a_zone_that_gcloud_does_not_know_is_asked_about_once(world, script):
    """Catches a misspelt zone that is asked about again and again, or one in which something is created."""
    done = world.run(script, "create", *VM[:3], "us-wset4-a", *VM[4:], FAKE_NO_ZONE="us-wset4-a")
    assert done.returncode == 2
    assert "us-wset4-a" in done.stdout and len(done.stdout.splitlines()) == 1
    assert len(world.lines("calls")) == 1


PAGES = [ROOT / "launch" / "README.md", ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def _shown():
    """Every command of a launch script in a page's block or a script's manual, as one line each."""
    found = {}
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.S):
            for line in block.replace("\\\n", " ").splitlines():
                found[line.strip()] = page.name
    for script in (ROOT / "launch").glob("*.*"):
        manual = re.sub(r"(?m)^# ?", "", script.read_text().partition("\nsource ")[0])
        for line in manual.replace("\\\n", " ").splitlines():
            found[line.strip()] = script.name
    return {line: page for line, page in found.items() if re.match(r"launch/\w+\.sh [a-z]", line)}


@pytest.mark.parametrize("line", sorted(_shown()))
def test_commands_that_are_shown_run_dry(world, line):
    """Catches a command in the docs with an option that is not there, or that is refused."""
    line = re.sub(r"\s\s+# .*|\s+#.*| \.\.\.", "", line)
    variables = {"ZONE": "us-west4-a", "BUCKET": "b", "PROJECT": "p", "NUMBER": "1", "IMAGE": "i"}
    line = re.sub(r"\$\{?(\w+)\}?", lambda name: variables[name[1]], line)
    script, command, *words = shlex.split(line)
    if "--dry-run" not in words:
        words.insert(0, "--dry-run")
    done = world.run(script.removeprefix("launch/"), command, *words)
    assert done.returncode == 0, done.stdout
    assert world.lines("calls") == []


def test_docs_show_every_script():
    """Catches a script that nobody is told of, and a reader of the docs that finds nothing."""
    scripts = {path.name for path in (ROOT / "launch").glob("*.sh")} - {
        "lib.sh",
        "vms.sh",
        "host.sh",
    }
    assert {line.split()[0].removeprefix("launch/") for line in _shown()} == scripts
    assert os.access(ROOT / "launch" / "gce.sh", os.X_OK)
