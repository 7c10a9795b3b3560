"""launch/gke.sh against a cluster that takes pods away, and the manifests that it is given."""

import subprocess
from pathlib import Path

import pytest
import yaml

FAKES = Path(__file__).parent / "fakes"
BUCKET = ("--workdir", "gs://bucket/run", "--config.x='a b'", "a&b", 'say "hi"')
POOL = ("--cluster", "c", "--region", "us-east5", "--zone", "us-east5-a")


def _documents(output):
    """What a dry run would hand to the cluster."""
    text = output.partition("<<'MANIFEST'\n")[2].partition("\nMANIFEST")[0]
    return list(yaml.safe_load_all(text))


def _pod(output):
    """The pod of its only job."""
    return _documents(output)[-1]["spec"]["template"]["spec"]


def test_a_cluster_job_goes_on_until_it_is_finished(world):
    """Catches a pod's exit 75, or a pod taken away, that ends the job; and a job that cannot be redone."""
    world.program(75, "taken", 0)
    for _ in range(2):
        done = world.run("gke.sh", "run", "--type", "v5e-16", "--spot", "--", *BUCKET)
        assert done.returncode == 0, done.stdout
        assert "finished" in done.stdout
        assert len(world.lines("starts")) == 3
        world.program(0)
        (world.state / "starts").write_text("x\nx\n")
    manifest = (world.state / "job").read_text()
    for line in (
        "completions: 4",
        "parallelism: 4",
        "google.com/tpu: 4",
        "gke-tpu-topology: 4x4",
        "gke-tpu-accelerator: tpu-v5-lite-podslice",
        'gke-spot: "true"',
        '- "electra_jax[tpu,gcs]"',
        r'- "say \"hi\""',
    ):
        assert line in manifest, line
    filled = manifest.partition("apiVersion")[2].replace('"$@"', "")
    assert "@" not in filled


def test_a_cluster_job_survives_a_lost_host_a_few_times(world):
    """Catches a job that ends with a host that fell silent, and one that aborts at every start for ever."""
    world.program(134, 134, 134, 75, 134, 0)
    done = world.run("gke.sh", "run", "--type", "v5p-16", "--", *BUCKET)
    assert done.returncode == 0, done.stdout
    assert len(world.lines("starts")) == 6
    assert '- "--join-timeout"' in (world.state / "job").read_text()
    world.program(*[134] * 4, 0)
    assert world.run("gke.sh", "run", "--type", "v5p-16", "--", *BUCKET).returncode == 1
    assert len(world.lines("starts")) == 10


def test_restarts_of_a_cluster_job_are_counted(world):
    """Catches money spent on a job that is stopped at every start."""
    world.program(*[75] * 5, 0)
    done = world.run(
        "gke.sh", "run", "--type", "v5p-16", "--max-restarts=2", "--spot", "--", *BUCKET
    )
    assert done.returncode == 1 and len(world.lines("starts")) == 2 * 2 + 1
    assert "backoffLimit: 4 " in (world.state / "job").read_text()


def test_a_pod_hands_on_the_order_to_save(world):
    """Catches an eviction's SIGTERM that does not reach the program, or after which it is started again."""
    world.program("wait", 0)
    dry = world.run("gke.sh", "run", "--type", "v5e-8", "--dry-run", "--", *BUCKET)
    command, script, package, *arguments = _pod(dry.stdout)["containers"][0]["command"][1:]
    assert (command, package) == ("-c", "electra_jax[tpu,gcs]")
    environment = {"PATH": f"{FAKES}:/usr/bin:/bin", "FAKE": str(world.state)}
    with subprocess.Popen(
        ["bash", "-c", script, package, *arguments],
        env=environment,
        cwd=world.home,
        stdout=subprocess.PIPE,
        text=True,
    ) as pod:
        world.wait_for(pod, "step 1")
        pod.terminate()
        rest, _ = pod.communicate(timeout=30)
    assert pod.returncode == 75 and "saved" in rest
    assert world.lines("starts") == ["pretrain " + " ".join(BUCKET)]


def test_a_failed_cluster_job_is_shown(world):
    """Catches a job whose failure is waited on for ever, or told without its log."""
    world.program(2)
    world.fail_at("kubectl", 1)  # the first answer of the cluster, too
    done = world.run("gke.sh", "run", "--type", "v5e-8", "--", *BUCKET)
    assert done.returncode == 1
    assert "step 1" in done.stdout and "failed" in done.stdout
    assert len(world.lines("created")) == 1


def test_a_cluster_is_made_and_given_back_once(world):
    """Catches a second create or delete that fails on what is there or gone."""
    cluster = ("--cluster", "c", "--region", "us-west4")
    for _ in range(2):
        assert world.run("gke.sh", "create", *cluster).returncode == 0
    assert world.lines("created") == ["c"]
    for _ in range(2):
        assert world.run("gke.sh", "delete", *cluster).returncode == 0
    assert not list((world.state / "clusters").iterdir())


def test_the_manifest_is_yaml(world):
    """Catches a manifest that only the fake cluster takes."""
    for spot in ((), ("--spot",)):
        done = world.run("gke.sh", "run", "--type", "v6e-8", *spot, "--dry-run", "--", *BUCKET)
        service, job = _documents(done.stdout)
        pod = job["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert container["command"][4:] == list(BUCKET)
        assert pod["subdomain"] == service["metadata"]["name"] == job["metadata"]["name"]
        assert ("cloud.google.com/gke-spot" in pod["nodeSelector"]) == bool(spot)
        assert container["resources"]["limits"]["google.com/tpu"] == 8


def test_a_pod_installs_what_its_image_lacks(world, tmp_path):
    """Catches 1.7 GB fetched by a pod whose image has the package, and one failed attempt that ends a pod without."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "pip").write_text(
        f'#!/usr/bin/env bash\necho "pip $*" >>{world.state}/calls\n'
        f"ln -s {FAKES}/electra-jax {FAKES}/common.sh {tools}/\n"
    )
    (tools / "pip").chmod(0o755)
    dry = world.run("gke.sh", "run", "--type", "v5e-8", "--dry-run", "--", *BUCKET)
    command = _pod(dry.stdout)["containers"][0]["command"]
    environment = {"PATH": f"{tools}:/usr/bin:/bin", "FAKE": str(world.state)}
    world.program(0, 0)
    for _ in range(2):  # the second start finds it
        subprocess.run(command, env=environment, cwd=world.home, check=True, capture_output=True)
    assert world.lines("calls") == ["pip install --quiet electra_jax[tpu,gcs]"]
    assert len(world.lines("starts")) == 2


def test_several_slices_are_a_set_of_jobs(world):
    """Catches slices that do not wait for each other, and jobs that differ from the job of one slice."""
    arguments = ("--type", "v5p:2x2x2", "--dry-run", "--", *BUCKET)
    one = _documents(world.run("gke.sh", "run", *arguments).stdout)[1]["spec"]
    (several,) = _documents(world.run("gke.sh", "run", "--slices", "3", *arguments).stdout)
    assert several["kind"] == "JobSet" and several["metadata"]["name"] == "electra"
    (job,) = several["spec"]["replicatedJobs"]
    assert job["replicas"] == 3
    assert one["template"]["spec"].pop("subdomain") == "electra"
    assert job["template"]["spec"] == one
    (gone,) = one["podFailurePolicy"]["rules"][0]["onPodConditions"]
    assert gone["status"] == "True"  # a Job has this by default, a JobSet refuses to be without
    assert one["template"]["spec"]["containers"][0]["command"][-2:] == ["--join-timeout", "7200"]
    world.program(75, 0)
    done = world.run("gke.sh", "run", "--slices", "3", *arguments[:2], "--", *BUCKET)
    assert done.returncode == 0, done.stdout
    (look,) = {line for line in world.lines("calls") if line.startswith("kubectl logs")}
    assert "jobset-name=electra,jobset.sigs.k8s.io/job-index=0," in look
    assert world.run("gke.sh", "delete", "--slices", "3").returncode == 0
    assert any("delete jobset electra" in line for line in world.lines("calls"))


def test_a_cluster_without_jobset_is_named_before_anything_is_handed_over(world):
    """Catches a set of jobs that nobody in the cluster looks at."""
    done = world.run(
        "gke.sh", "run", "--type", "v5e-16", "--slices=2", "--", *BUCKET, FAKE_NO_JOBSET="1"
    )
    assert done.returncode == 2 and "JobSet" in done.stdout and len(done.stdout.splitlines()) == 1
    assert not (world.state / "job").exists()


@pytest.mark.parametrize(
    ("flags", "selectors"),
    [
        (("--type", "tpu7x-8"), {"gke-tpu-accelerator": "tpu7x", "gke-tpu-topology": "2x2x1"}),
        (("--type", "v5p-12288"), {"gke-tpu-topology": "16x16x24"}),
        (("--type", "v5p-384"), {"gke-tpu-topology": "4x4x12"}),
        (("--type", "v6e:4x8", "--flex-start"), {"gke-flex-start": "true"}),
        (
            ("--type", "v5e-8", "--reservation", "projects/p/reservations/r"),
            {
                "reservation-name": "r",
                "reservation-affinity": "specific",
                "reservation-project": "p",
            },
        ),
    ],
)
def test_where_pods_go(world, flags, selectors):
    """Catches a pod that waits for a node that no cluster has."""
    done = world.run("gke.sh", "run", *flags, "--disk=200Gi", "--dry-run", "--", *BUCKET)
    assert done.returncode == 0, done.stdout
    pod = _pod(done.stdout)
    found = {
        key.removeprefix("cloud.google.com/"): value for key, value in pod["nodeSelector"].items()
    }
    assert selectors.items() <= found.items()
    (container,) = pod["containers"]
    assert container["resources"]["requests"]["ephemeral-storage"] == "200Gi"


@pytest.mark.parametrize(
    ("type_", "words"),
    [
        ("v5p-512", ("--machine-type=ct5p-hightpu-4t", "--tpu-topology=4x8x8", "--num-nodes=64")),
        ("tpu7x:2x2x2", ("--machine-type=tpu7x-standard-4t", "--placement-policy=electra", "--num-nodes=2")),
    ],
)  # fmt: skip
def test_node_pools_are_made_and_given_back_once(world, type_, words):
    """Catches a pool of another shape, a second create or delete that fails, and a pool that goes on costing."""
    flags = ("--type", type_, "--slices", "2")
    for _ in range(2):
        done = world.run("gke.sh", "pool", *POOL, *flags)
        assert done.returncode == 0, done.stdout
    assert world.lines("created") == ["electra-0", "electra-1"]
    (create,) = {line for line in world.lines("calls") if "node-pools create electra-1" in line}
    assert all(word in create for word in words)
    for _ in range(2):
        done = world.run("gke.sh", "delete", "--pools", *POOL, *flags)
        assert done.returncode == 0, done.stdout
    assert not list((world.state / "clusters").iterdir())
    assert not list((world.state / "policies").iterdir())


def test_an_image_is_built_with_the_wheel(world):
    """Catches an image that installs the index's version instead of the wheel it was given."""
    (world.home / "dist").mkdir()
    (world.home / "dist" / "e.whl").write_text("")
    image = ("image", "--image", "host/project/electra:1")
    done = world.run("gke.sh", *image, "--from", "dist/e.whl")
    assert done.returncode == 0, done.stdout
    build, push = world.lines("calls")
    assert "PACKAGE=electra_jax[tpu,gcs] @ file:///package/e.whl" in build and build.endswith(
        " dist"
    )
    assert push == "docker push host/project/electra:1"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("run", "--type", "v5e-7", "--", *BUCKET), "v5e-7"),
        (("run", "--type", "v5p:4x4x6", "--", *BUCKET), "v5p:4x4x6"),
        (("run", "--type", "v5p-200", "--", *BUCKET), "v5p-200"),
        (("run", "--type", "v5e-8", "--slices", "2", "--", *BUCKET), "several hosts"),
        (("run", "--type", "v5e-16", "--slices", "0", "--", *BUCKET), "--slices 0"),
        (("run", "--type", "v5e-8", "--disk", "40GB", "--", *BUCKET), "40Gi"),
        (("run", "--type", "v5e-8", "--name", "My_Job", "--", *BUCKET), "My_Job"),
        (("run", "--type", "v5e-8", "--reservation", "--", *BUCKET), "--reservation"),
        (("run", "--type", "v5e-8", "--spot", "--flex-start", "--", *BUCKET), "choose one"),
        (("run", "--type", "v5e-8", "--max-restarts=x", "--", *BUCKET), "--max-restarts"),
        (("run", "--type", "v5e-8", "--spot=no", "--", *BUCKET), "no follows no option"),
        (("run", "--type", "v5e-8", "--", "--workdir", "run"), "gs://"),
        (("run", "--", *BUCKET), "--type"),
        (("run", "--type", "tpu7x-8", "--", *BUCKET, "--config.mesh.fsdp=16"), "8 devices"),
        (
            ("run", "--type", "v5e-16", "--slices=3", "--", *BUCKET, "--config.mesh.data=16"),
            "3 slices",
        ),
        (("pool", *POOL[:-1], "us-east5", "--type", "v5e-8"), "us-east5-a"),
        (("pool", "--type", "v5e-8", "--zone", "us-east5-a"), "--cluster"),
        (("create", "--cluster", "c", "--region", "west"), "west"),
        (("image",), "--image"),
        (("image", "--image", "i", "--from", "none.whl"), "none.whl"),
    ],
)
def test_mistakes_are_named_before_anything_is_made(world, arguments, word):
    """Catches a mistake that is found when something already costs."""
    done = world.run("gke.sh", *arguments)
    assert done.returncode == 2
    assert done.stdout.startswith("error: ") and word in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert world.lines("calls") == []
