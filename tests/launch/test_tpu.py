"""launch/tpu.sh against a cloud that loses calls and takes machines away."""

import re

import pytest

MACHINE = ("--name", "e", "--zone", "us-west4-a", "--type", "v5e-8")
RUN = ("--config", "small", "--workdir", "gs://bucket/run", "--config.data.path=gs://bucket/data")


def test_a_run_from_nothing_to_its_end(world):
    """Catches a step left out: queue, wait, install on the host, start with the arguments, log, end."""
    world.program(0)
    done = world.run("tpu.sh", "run", *MACHINE, "--", *RUN)
    assert done.returncode == 0, done.stdout
    assert "step 1 of start 1" in done.stdout
    assert world.lines("starts") == ["pretrain " + " ".join(RUN)]
    create = next(line for line in world.lines("calls") if " create " in line)
    assert "--node-id=e" in create and "--spot" not in create
    assert "--accelerator-type=v5litepod-8 " in create
    assert "--runtime-version=v2-alpha-tpuv5-lite" in create
    assert any("electra_jax[tpu,gcs]" in line for line in world.lines("calls"))


def test_spot_machines_are_replaced_until_the_run_is_finished(world):
    """Catches a run that ends with a preemption, announced (75) or not, or keeps a dead machine."""
    world.program(75, "taken", 0)
    done = world.run("tpu.sh", "run", *MACHINE, "--spot", "--", *RUN)
    assert done.returncode == 0, done.stdout
    assert len(world.lines("starts")) == 3
    assert world.lines("created") == ["e", "e"]
    assert world.lines("deleted") == ["e"]
    assert all("--spot" in line for line in world.lines("calls") if " create " in line)


def test_a_failure_stops_with_its_status_and_the_end_of_the_log(world):
    """Catches a launcher that restarts a failing program for ever, or hides why it failed."""
    world.program(2, 0)
    done = world.run("tpu.sh", "run", *MACHINE, "--", *RUN)
    assert done.returncode == 2
    assert len(world.lines("starts")) == 1
    assert "step 1 of start 1" in done.stdout and "exit 2" in done.stdout
    assert (world.state / "queue" / "e").exists()


def test_restarts_are_counted(world):
    """Catches money spent on a run that is preempted at every start."""
    world.program(*[75] * 5)
    done = world.run("tpu.sh", "run", *MACHINE, "--max-restarts", "2", "--", *RUN)
    assert done.returncode == 2
    assert len(world.lines("starts")) == 3


def test_the_survivor_of_a_lost_host_is_started_again_a_few_times(world):
    """Catches a run that ends with a host that was lost, and a program that aborts at every start and is paid for."""
    world.program(134, 75, 134, 134, 134, 0)
    done = world.run("tpu.sh", "run", *MACHINE, "--", *RUN)
    assert done.returncode == 0, done.stdout
    assert len(world.lines("starts")) == 6
    world.program(*[134] * 5)
    done = world.run("tpu.sh", "run", *MACHINE, "--", *RUN)
    assert done.returncode == 134 and "exit 134" in done.stdout
    assert len(world.lines("starts")) == 6 + 4


@pytest.mark.parametrize("survivor", [75, 134])
def test_a_host_that_failed_by_itself_ends_the_run(world, survivor):
    """Catches a program that crashes on one host and is started again because the others were only left alone."""
    world.program(survivor, 0)
    (world.state / "peers").write_text("3")
    done = world.run("tpu.sh", "run", *MACHINE[:-1], "v5e-16", "--", *RUN, FAKE_WORKERS="2")
    assert done.returncode == 3 and "exit 3" in done.stdout
    assert len(world.lines("starts")) == 1


@pytest.mark.parametrize("how", ["fail_at", "lose_at"])
def test_a_failing_create_rents_once(world, how):
    """Catches a second machine after the answer to the request was lost, or none after it failed."""
    world.fail_at("gcloud", 2, how=how)
    assert world.run("tpu.sh", "create", *MACHINE).returncode == 0
    assert " create " in world.lines("calls")[1]
    assert world.lines("created") == ["e"]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["fail_at", "lose_at"])
def test_no_failing_call_rents_twice_or_loses_the_run(world, how):
    """Catches a call whose failure, or lost answer, leads to a second machine or a stuck script."""
    world.program(0)
    world.run("tpu.sh", "run", *MACHINE, "--", *RUN)
    calls = sum(line.startswith("gcloud") for line in world.lines("calls"))
    assert calls > 8
    for call in range(1, calls + 1):
        for path in sorted(world.state.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        world.program(0, 0, 0)
        world.fail_at("gcloud", call, how=how)
        done = world.run("tpu.sh", "run", *MACHINE, "--", *RUN)
        assert done.returncode == 0, (
            f"call {call} ({world.lines('calls')[call - 1]})\n{done.stdout}"
        )
        assert world.lines("created") == ["e"], f"call {call}"


def test_a_cloud_that_is_down_ends_in_words(world):
    """Catches endless retries, and an error that says nothing."""
    world.fail_at("gcloud", *range(1, 100))
    done = world.run("tpu.sh", "run", *MACHINE, "--", *RUN)
    assert done.returncode == 2
    assert "UNAVAILABLE" in done.stdout and "gcloud cannot say" in done.stdout
    assert len(world.lines("calls")) < 10


def test_commands_may_be_given_twice(world):
    """Catches a second machine from a second create, and a delete that fails when there is nothing."""
    for _ in range(2):
        assert world.run("tpu.sh", "create", *MACHINE).returncode == 0
    assert world.lines("created") == ["e"]
    assert "READY" in world.run("tpu.sh", "status", *MACHINE).stdout
    for word in ("is deleted", "there is no e"):
        done = world.run("tpu.sh", "delete", "--name", "e", "--zone", "us-west4-a")
        assert done.returncode == 0 and word in done.stdout


def test_a_run_that_runs_is_joined_and_can_be_stopped(world):
    """Catches two programs on one machine, and a stop that the watching script takes for a preemption."""
    world.program("wait", 0)
    with world.start("tpu.sh", "run", *MACHINE, "--", *RUN) as first:
        world.wait_for(first, "step 1")
        with world.start(
            "tpu.sh", "resume", *MACHINE, "--", "--workdir", "gs://bucket/run"
        ) as second:
            world.wait_for(second, "step 1")
            assert world.run("tpu.sh", "stop", *MACHINE).returncode == 0
            rest, _ = second.communicate(timeout=30)
            assert second.returncode == 75 and "saved" in rest
        rest, _ = first.communicate(timeout=30)
        assert first.returncode == 75 and "stopped on request" in rest
    assert len(world.lines("starts")) == 1


def test_every_host_of_every_slice_gets_its_part(world):
    """Catches a pod slice of which only one host trains, and slices asked for one by one."""
    world.program(0)
    done = world.run(
        "tpu.sh", "run", "--name", "e", "--zone", "us-west4-a", "--type", "v5e-16", "--slices", "2", "--", *RUN,
        "--config.mesh.data=4", "--config.mesh.fsdp=8", FAKE_WORKERS="2",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    create = next(line for line in world.lines("calls") if " create " in line)
    assert "--node-count=2 --node-prefix=e" in create
    hosts = sorted((world.state / "hosts").glob("*/*"))
    assert len(hosts) == 4
    assert all((host / ".electra_jax" / "env" / "bin" / "electra-jax").exists() for host in hosts)
    assert all("pretrain" in (host / ".electra_jax" / "log").read_text() for host in hosts)


def test_without_the_queue(world):
    """Catches --direct machines asked for in the queue, or not replaced."""
    world.program("taken", 0)
    done = world.run("tpu.sh", "run", *MACHINE, "--direct", "--spot", "--", *RUN)
    assert done.returncode == 0, done.stdout
    assert world.lines("created") == ["e", "e"] and world.lines("deleted") == ["e"]
    assert not any("queued-resources" in line for line in world.lines("calls"))


def test_a_machine_that_somebody_deleted_stays_deleted(world):
    """Catches a watching script that rents again what its user has just given back."""
    world.program("wait")
    with world.start("tpu.sh", "run", *MACHINE, "--", *RUN) as process:
        world.wait_for(process, "step 1")
        (pid,) = world.state.glob("hosts/e/0/.electra_jax/pid")
        number = pid.read_text().strip()
        assert world.run("tpu.sh", "delete", "--name", "e", "--zone", "us-west4-a").returncode == 0
        world.run_shell(f"kill -KILL -- -{number}")
        rest, _ = process.communicate(timeout=30)
    assert process.returncode == 2 and "was deleted" in rest
    assert world.lines("created") == ["e"]


@pytest.mark.parametrize(
    ("type_", "accelerator", "runtime"),
    [
        ("v6e-8", "v6e-8", "v2-alpha-tpuv6e"),
        ("v5p-8", "v5p-8", "v2-alpha-tpuv5"),
        ("v4-8", "v4-8", "tpu-ubuntu2204-base"),
    ],
)
def test_generations(world, type_, accelerator, runtime):
    """Catches a generation whose machines come up with software that cannot drive them."""
    done = world.run(
        "tpu.sh", "create", "--name", "e", "--zone", "us-west4-a", "--type", type_, "--dry-run"
    )
    assert f"--accelerator-type={accelerator}" in done.stdout
    assert f"--runtime-version={runtime}" in done.stdout


def test_a_dry_run_shows_every_command_and_gives_none(world):
    """Catches a dry run that rents, or that shows something else than what would be run."""
    dry = world.run("tpu.sh", "run", *MACHINE, "--dry-run", "--", *RUN)
    assert dry.returncode == 0
    assert world.lines("calls") == []
    world.program(0)
    world.run("tpu.sh", "run", *MACHINE, "--", *RUN)
    calls = [line for line in world.lines("calls") if line.startswith("gcloud")]
    given = [line for line in calls if " describe " not in line]
    shown = [
        re.sub(r"\\(.)", r"\1", line.removeprefix("+ "))
        for line in dry.stdout.splitlines()
        if line.startswith("+ gcloud")
    ]
    assert [line.replace("''", "") for line in shown] == [line.replace("''", "") for line in given]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--flex-start",), (" --provisioning-model=flex-start --max-run-duration=7d",)),
        (("--flex-start", "--max-run-duration=1d12h"), ("--max-run-duration=1d12h",)),
        (("--reservation=r",), (" --reservation=projects/PROJECT/locations/us-west4-a/reservations/r",)),
        (("--reservation", "projects/p/reservations/r"), ("--reservation=projects/p/reservations/r",)),
    ],
)  # fmt: skip
def test_what_only_alpha_commands_know_is_asked_of_them(world, flags, words):
    """Catches a request that gcloud refuses, and alpha commands where others would do."""
    done = world.run("tpu.sh", "run", *MACHINE, *flags, "--dry-run", "--", *RUN)
    assert done.returncode == 0, done.stdout
    create, *others = [line for line in done.stdout.splitlines() if line.startswith("+ gcloud")]
    assert create.startswith("+ gcloud alpha compute tpus queued-resources create e ")
    assert all(word in create for word in words)
    assert not any("alpha" in line.split(" --command")[0] for line in others)


@pytest.mark.parametrize(
    ("flags", "how"),
    [
        ((), "compute tpus queued-resources ssh e --command"),
        (("--slices", "2"), "compute tpus queued-resources ssh e --command"),
        (("--direct",), "alpha compute tpus tpu-vm ssh e --command"),
    ],
)
def test_a_machine_without_an_address_is_reached_by_the_proxy(world, flags, how):
    """Catches hosts that nobody can reach, and a flag that gcloud's command for single machines does not know."""
    world.program(0)
    done = world.run("tpu.sh", "run", *MACHINE, "--internal-ips", *flags, "--", *RUN)
    assert done.returncode == 0, done.stdout
    (create,) = [line for line in world.lines("calls") if " create " in line]
    assert " --internal-ips " in create
    reached = [line for line in world.lines("calls") if " ssh " in line or " scp " in line]
    assert reached and all(" --tunnel-through-iap" in line for line in reached)
    assert all(line.startswith(f"gcloud {how}") for line in reached if " ssh " in line)
    inside = ("--internal-ips", "--ssh-flag=--internal-ip", "--dry-run")
    done = world.run("tpu.sh", "run", *MACHINE, *inside, "--", *RUN)
    assert "--internal-ip " in done.stdout and "iap" not in done.stdout


def test_a_shape_is_asked_for_as_it_is_written(world):
    """Catches a shape that is turned into another one of as many chips."""
    for type_, words in (
        ("v5e:2x4", "--accelerator-type=v5litepod-8"),
        ("v5p:4x4x16", "--type=v5p --topology=4x4x16"),
        ("v5p-512", "--accelerator-type=v5p-512"),
    ):
        done = world.run("tpu.sh", "create", *MACHINE[:-1], type_, "--dry-run")
        assert done.returncode == 0 and words in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("run", "--zone", "us-west4-a", "--type", "v5e-8"), "--name"),
        (("run", "--name", "e", "--type", "v5e-8"), "--zone"),
        (("create", "--name", "e", "--zone", "us-west4-a"), "--type"),
        (("create", "--name", "e", "--zone", "us-west4-a", "--type", "v9-8"), "v5e"),
        (("run", *MACHINE, "--spot", "--", "--workdir", "run"), "gs://"),
        (("run", "--name", "e", "--zone", "us-west4-a", "--type", "v5e-16", "--", "--workdir", "run"), "gs://"),
        (("run", *MACHINE), "--workdir"),
        (("run", *MACHINE, "--direct", "--slices", "2", "--", *RUN), "--direct"),
        (("run", *MACHINE, "--slices", "0", "--", *RUN), "--slices 0"),
        (("run", *MACHINE, "--slices", "1.5", "--", *RUN), "--slices 1.5"),
        (("create", "--name", "e", "--zone", "us-west4-a", "--type", "v3-8", "--slices", "2"), "v4 and later"),
        (("run", *MACHINE, "--slices", "2", "--", *RUN, "--config.mesh.fsdp=16"), "8 devices of a slice"),
        (("run", *MACHINE[:-1], "v5p-8", "--", *RUN, "--config.mesh.fsdp", "8"), "4 devices of a slice"),
        (("run", *MACHINE, "--slices", "3", "--", *RUN, "--config.mesh.data=8"), "no multiple of the 3"),
        (("run", *MACHINE, "--slices", "2", "--", *RUN, "--config.mesh.data=6"), "16 devices of 2 slice"),
        (("run", *MACHINE, "--from", "none.whl", "--", *RUN), "none.whl"),
        (("run", *MACHINE, "--tpye", "x"), "--tpye"),
        (("create", *MACHINE[:-1], "v5e-7"), "v5e-7"),
        (("create", *MACHINE[:-1], "v3-x"), "v3-x"),
        (("run", *MACHINE[:-1], "v5p-16", "--", "--workdir", "run"), "gs://"),
        (("run", *MACHINE[:-1], "v3-32", "--", "--workdir", "run"), "gs://"),
        (("create", *MACHINE[:-1], "tpu7x-8"), "launch/gce.sh"),
        (("create", *MACHINE[:3], "us-west4", *MACHINE[4:]), "us-west4-a"),
        (("create", *MACHINE, "--reservation"), "--reservation needs a value"),
        (("create", *MACHINE, "--reserved", "--spot"), "choose one"),
        (("create", *MACHINE, "--direct", "--flex-start"), "--direct"),
        (("create", "--name", "--zone", "z"), "--zone is an option"),
        (("create", *MACHINE, "--create-flag"), "--create-flag needs a value"),
        (("fly",), "fly"),
    ],
)  # fmt: skip
def test_mistakes_are_named_before_anything_is_rented(world, arguments, word):
    """Catches a mistake that is found when the machine already costs."""
    done = world.run("tpu.sh", *arguments)
    assert done.returncode == 2
    assert done.stdout.startswith("error: ") and word in done.stdout
    assert world.lines("calls") == []
