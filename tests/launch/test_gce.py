"""launch/gce.sh against a Compute Engine that loses calls and takes machines away."""

import re

import pytest

MACHINE = ("--name", "e", "--zone", "us-east5-a", "--type", "v6e-8")
SLICE = ("--name", "e", "--zone", "us-east5-a", "--type", "v6e-16")
PAIR = (
    "--name",
    "e",
    "--zone",
    "us-east5-a",
    "--type",
    "v5p-16",
)  # the smallest slice of several hosts
RUN = ("--config", "small", "--workdir", "gs://bucket/run", "--config.data.path=gs://bucket/data")


def given(world, *words):
    """The calls of gcloud that hold these words."""
    return [line for line in world.lines("calls") if all(word in line for word in words)]


@pytest.mark.parametrize("machine", [MACHINE, SLICE], ids=["host", "slice"])
def test_a_run_from_nothing_to_its_end_and_away(world, machine):
    """Catches a step left out: the machine, the package, the program on every host, its log, and all of it deleted."""
    world.program(0)
    done = world.run("gce.sh", "run", *machine, "--", *RUN)
    assert done.returncode == 0, done.stdout
    assert "step 1 of start 1" in done.stdout  # of process 0, which is on the group's second host
    assert world.lines("starts") == ["pretrain " + " ".join(RUN)]
    hosts = sorted((world.state / "hosts").glob("*/*"))
    assert len(hosts) == (1 if machine == MACHINE else 4)
    assert all("pretrain" in (host / ".electra_jax" / "log").read_text() for host in hosts)
    for word in ("is deleted", "there is no e"):
        done = world.run("gce.sh", "delete", *machine)
        assert done.returncode == 0 and word in done.stdout, done.stdout
    for kind in ("instances", "groups", "templates", "policies", "hosts"):
        assert not list((world.state / kind).iterdir()), kind


@pytest.mark.parametrize("machine", [MACHINE, PAIR], ids=["host", "slice"])
def test_spot_machines_are_replaced_until_the_run_is_finished(world, machine):
    """Catches a run that ends with a preemption, announced (75) or not, or keeps a dead machine."""
    world.program(75, "taken", 0)
    done = world.run("gce.sh", "run", *machine, "--spot", "--", *RUN)
    assert done.returncode == 0, done.stdout
    assert len(world.lines("starts")) == 3
    assert world.lines("created") == ["e", "e"] and world.lines("deleted") == ["e"]
    assert given(
        world, " create e", "--provisioning-model=SPOT", "--instance-termination-action=STOP"
    )


@pytest.mark.parametrize("survivor", [75, 134])
def test_a_host_that_failed_by_itself_ends_the_run(world, survivor):
    """Catches a program that crashes on one host and is started again because the others were only left alone."""
    world.program(survivor, 0)
    (world.state / "peers").write_text("3")
    done = world.run("gce.sh", "run", *SLICE, "--", *RUN)
    assert done.returncode == 3 and "exit 3" in done.stdout
    assert len(world.lines("starts")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("how", ["fail_at", "lose_at"])
def test_no_failing_call_rents_twice_or_loses_the_run(world, how):
    """Catches a step of a slice's request whose failure, or lost answer, leads to a second one or a stuck script."""
    world.program(0)
    world.run("gce.sh", "run", *PAIR, "--", *RUN)
    calls = sum(line.startswith("gcloud") for line in world.lines("calls"))
    for call in range(1, calls + 1):
        for path in sorted(world.state.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        world.program(0, 0, 0)
        world.fail_at("gcloud", call, how=how)
        done = world.run("gce.sh", "run", *PAIR, "--", *RUN)
        assert done.returncode == 0, (
            f"call {call} ({world.lines('calls')[call - 1]})\n{done.stdout}"
        )
        assert len(list((world.state / "instances").iterdir())) == 2, f"call {call}"


@pytest.mark.parametrize("call", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("how", ["fail_at", "lose_at"])
def test_a_failing_step_of_a_request_is_taken_again(world, call, how):
    """Catches a slice that is never resized because its policy was there already."""
    world.fail_at("gcloud", call, how=how)
    done = world.run("gce.sh", "create", *PAIR)
    assert done.returncode == 0, done.stdout
    assert len(list((world.state / "instances").iterdir())) == 2


@pytest.mark.parametrize(
    ("type_", "machine", "hosts"),
    [
        ("v6e-1", "ct6e-standard-1t", 1),
        ("v6e-4", "ct6e-standard-4t", 1),
        ("v6e:2x4", "ct6e-standard-8t", 1),
        ("v5p-8", "ct5p-hightpu-4t", 1),
        ("v5p-512", "ct5p-hightpu-4t", 64),
        ("tpu7x-8", "tpu7x-standard-4t", 1),
        ("tpu7x:4x4x8", "tpu7x-standard-4t", 32),
    ],
)
def test_machines_of_every_type(world, type_, machine, hosts):
    """Catches a type that asks for a machine, an image or a number of hosts of another."""
    done = world.run(
        "gce.sh", "create", *MACHINE[:-1], type_, "--project", "p", "--reservation=r", "--dry-run"
    )
    assert done.returncode == 0, done.stdout
    assert f"--machine-type={machine} " in done.stdout
    assert ("tpu-tpu7x" if "tpu7x" in type_ else "v5e-v5p-v6e") in done.stdout
    assert (
        "--provisioning-model=RESERVATION_BOUND --reservation-affinity=specific --reservation=r"
        in done.stdout
    )
    if hosts > 1:
        assert f"--size={hosts} " in done.stdout
        assert "--template=projects/p/regions/us-east5/instanceTemplates/e" in done.stdout
    else:
        assert "instance-groups" not in done.stdout


@pytest.mark.parametrize("machine", [MACHINE, SLICE], ids=["host", "slice"])
def test_a_dry_run_shows_every_command_and_gives_none(world, machine):
    """Catches a dry run that rents, or that shows something else than what would be run."""
    flags = (*machine, "--project=p", "--flex-start", "--internal-ips", "--create-flag=--network=n")
    dry = world.run("gce.sh", "run", *flags, "--dry-run", "--", *RUN)
    assert dry.returncode == 0, dry.stdout
    assert world.lines("calls") == []
    world.program(0)
    world.run("gce.sh", "run", *flags, "--", *RUN)
    calls = [re.sub(r"\be-x\d", "e-HOST", line) for line in given(world, "gcloud")]
    looks = (" describe ", " list-instances ", "host.sh first")
    done = [line for line in calls if not any(look in line for look in looks)]
    shown = [
        re.sub(r"\\(.)", r"\1", line.removeprefix("+ "))
        for line in dry.stdout.splitlines()
        if line.startswith("+ gcloud")
    ]
    assert [line.replace("''", "") for line in shown] == [
        line.replace("''", "") for line in dict.fromkeys(done)
    ]
    assert "--no-address" in dry.stdout and "--network=n" in dry.stdout
    assert "--provisioning-model=FLEX_START --max-run-duration=7d" in dry.stdout
    assert all(
        "--tunnel-through-iap" in line for line in done if " ssh " in line or " scp " in line
    )


def test_a_machine_by_flex_start_is_asked_for_again_when_its_time_is_over(world):
    """Catches the end of a flex-start machine taken for its user's order, and an order taken for its end."""
    world.program("wait")
    for duration, word in (("1m", "asking again"), ("7d", "was deleted")):
        with world.start(
            "gce.sh", "run", *MACHINE, "--flex-start", "--max-run-duration", duration, "--", *RUN
        ) as process:
            world.wait_for(process, "step 1")
            (pid,) = world.state.glob("hosts/e/0/.electra_jax/pid")
            number = pid.read_text().strip()
            world.program(2)
            world.run("gce.sh", "delete", *MACHINE)
            world.run_shell(f"kill -KILL -- -{number}")
            rest, _ = process.communicate(timeout=30)
        assert process.returncode == 2 and word in rest, rest
        world.run("gce.sh", "delete", *MACHINE)
        world.program("wait")


def test_a_slice_whose_host_has_vanished_is_replaced(world):
    """Catches a script that waits for ever for the hosts of a slice whose time by flex-start was over."""
    world.program("wait", 0)
    with world.start("gce.sh", "run", *PAIR, "--flex-start", "--", *RUN) as process:
        world.wait_for(process, "step 1")
        (pid,) = world.state.glob("hosts/e-x1/0/.electra_jax/pid")
        number = pid.read_text().strip()
        for kind in ("instances", "nodes"):
            (world.state / kind / "e-x1").unlink()
        world.run_shell(f"kill -KILL -- -{number}")
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0, rest
    assert "PREEMPTED" in rest and world.lines("created") == ["e", "e"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("create", *MACHINE[:-1], "v5e-8"), "launch/tpu.sh"),
        (("create", *MACHINE[:-1], "v6e-7"), "v6e"),
        (("create", *MACHINE[:-1], "v6e:4x2"), "v6e:4x2"),
        (("create", *MACHINE[:-1], "v5p:4x4x6"), "v5p:4x4x6"),
        (("create", *MACHINE[:-2]), "--type"),
        (("create", *MACHINE, "--slices=2"), "launch/gke.sh"),
        (("create", *MACHINE, "--reserved"), "--reservation"),
        (("create", *MACHINE, "--reservation"), "--reservation needs a value"),
        (("create", *MACHINE, "--reservation", "--dry-run"), "--dry-run is an option"),
        (("create", *MACHINE, "--reservation="), "--reservation needs a value"),
        (("create", *MACHINE, "--reservation=a/b"), "a/b"),
        (("create", *MACHINE, "--spot", "--flex-start"), "choose one"),
        (("create", *MACHINE, "--flex-start", "--max-run-duration=8d"), "at most 7d"),
        (("create", *MACHINE, "--flex-start", "--max-run-duration=soon"), "soon"),
        (("create", *MACHINE, "--max-run-duration=4h"), "--flex-start"),
        (("create", *MACHINE[:3], "us-east5", *MACHINE[4:]), "us-east5-a"),
        (("create", *MACHINE[:3], "us_east5a", *MACHINE[4:]), "us_east5a"),
        (("run", *MACHINE, "--env=1x=2", "--", *RUN), "NAME=VALUE"),
        (("run", *MACHINE, "--env=NOT_SET_HERE", "--", *RUN), "NOT_SET_HERE"),
        (("run", *MACHINE, "--flex-start", "--", "--workdir", "run"), "gs://"),
        (("run", *MACHINE[:-1], "tpu7x-8", "--", *RUN, "--config.mesh.fsdp=16"), "8 devices of a slice"),
    ],
)  # fmt: skip
def test_mistakes_are_named_before_anything_is_rented(world, arguments, word):
    """Catches a mistake that is found when the machine already costs."""
    done = world.run("gce.sh", *arguments)
    assert done.returncode == 2
    assert done.stdout.startswith("error: ") and word in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert world.lines("calls") == []
