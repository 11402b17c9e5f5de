"""The profile for Slurm on a real cluster of one node: the same numbers, the resources of the plan, time limits, memory.

Each test runs on a cluster without accounting and on one with it. Only the pause between two looks at the jobs is shorter than
users have it (:mod:`impatient_snakemake`).
"""

import contextlib
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import impatient_snakemake
import pytest
from slurm_cluster import Cluster, cluster, require
from test_workflow import CONFIG, REPOSITORY, Project

pytestmark = [
    pytest.mark.workflow,
    pytest.mark.parametrize("accounting", [False, True], ids=["without_accounting", "with_accounting"]),
]

MODEL = "checkerboard/fm_ot/0"
PARALLEL = ("features", "train", "sample", "sample_quality")
"""The stages that run in all processes."""
STAGES = ("prepare", "features", "train", "sample", "likelihood", "sweep", "sample_quality")
SLOW = '''
import time
from pathlib import Path
from fmbench.networks.mlp import MLP

class Slow(MLP):
    """An MLP that trains slowly until a file says otherwise."""

    def forward(self, t, x):
        if self.training and not Path(__file__).with_name("fast").exists():
            time.sleep(0.2)
        return super().forward(t, x)
'''


class ClusterProject(Project):
    """A project that runs on a cluster."""

    target = ("results/table1.csv",)

    @contextlib.contextmanager
    def on(self, slurm: Cluster, *arguments: str) -> Iterator[subprocess.Popen]:
        """A run of snakemake with the profile."""
        command = [sys.executable, impatient_snakemake.__file__, "--cores", "2", "--workflow-profile", "profiles/slurm"]
        command += arguments or self.target
        environment = self.environment | slurm.environment
        with open(self.folder / "run.log", "w") as log:
            run = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log)
        try:
            yield run
        finally:
            run.kill()
            run.wait()

    @property
    def said(self) -> str:
        return (self.folder / "run.log").read_text()


class SlowProject(ClusterProject):
    """Two processes train its one model, slowly until there is a file ``fast``."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "slow.py").write_text(SLOW)
        settings = json.loads(json.dumps(CONFIG["settings"]))
        settings["checkerboard"]["network"] = {"kind": "slow:Slow", "parameters": {"width": 32, "depth": 2}}
        settings["checkerboard"]["training"] |= {"iterations": 400, "checkpoint_every": 20}
        self.configure(processes=2, methods=["fm_ot"], settings=settings)


class SmokeProject(ClusterProject):
    """A project with the smoke preset."""

    target = ("--configfile", "configs/smoke.yaml", "--", "results/smoke/table1.csv")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        shutil.copytree(REPOSITORY / "configs", folder / "configs")
        shutil.copy(REPOSITORY / "config.yaml", folder)

    def table(self) -> bytes:
        return (self.folder / "results/smoke/table1.csv").read_bytes()


@pytest.fixture(scope="module")
def local_table(tmp_path_factory) -> Callable[[type[ClusterProject]], bytes]:
    """The table of a project without Slurm. CI has already made that of the smoke preset: ``FMBENCH_SMOKE_TABLE`` names it."""

    @functools.cache
    def made(kind: type[ClusterProject]) -> bytes:
        if kind is SmokeProject and "FMBENCH_SMOKE_TABLE" in os.environ:
            return Path(os.environ["FMBENCH_SMOKE_TABLE"]).read_bytes()
        project = kind(tmp_path_factory.mktemp("local"))
        (project.folder / "fast").touch()
        project.run(*project.target)
        return project.table()

    return made


def test_the_smoke_preset_gives_the_table_of_a_local_run(tmp_path, local_table, accounting):
    """By the profile as it is, on a node with the memory of a laptop. With accounting it is the same work once more."""
    if accounting and "FMBENCH_SLURM" not in os.environ:
        pytest.skip("the same work as without accounting: set FMBENCH_SLURM=1")
    require(accounting)
    project = SmokeProject(tmp_path)
    with cluster(8000, accounting) as slurm:
        with project.on(slurm) as run:
            assert run.wait(3000) == 0, project.said + slurm.logs()
        jobs = shown(slurm)
        assert {job.state for job in jobs} == {"COMPLETED"}
        assert not accounting or recorded(slurm) == {job.number: job.state for job in jobs}
    assert project.table() == local_table(SmokeProject)


def test_a_training_of_two_processes_continues_after_its_time_limit(tmp_path, local_table, accounting):
    """By the profile as it is. Jobs ask for what the plan counts, second attempts for twice as much. The table is the same."""
    if not accounting and "FMBENCH_SLURM" not in os.environ:
        pytest.skip("the same work as with accounting: set FMBENCH_SLURM=1")
    require(accounting)
    project = SlowProject(tmp_path)
    with cluster(40_000, accounting) as slurm:
        with project.on(slurm) as run:
            first = end_the_training(project, slurm, run)
            assert run.wait(1500) == 0, project.said + slurm.logs()
        jobs = shown(slurm)
        assert not accounting or recorded(slurm) == {job.number: job.state for job in jobs}
    log = (project.folder / f"results/logs/train/{MODEL}.log").read_text()
    resumed = re.search(r"resumed from the checkpoint at iteration (\d+)", log)
    assert resumed is not None and int(resumed[1]) >= 20

    counted = json.loads((project.folder / "results/resources.json").read_text())
    asked = counted["datasets"]["checkerboard"] | counted["models"]["checkerboard"]["fm_ot"]
    for stage in STAGES:
        memory, minutes, _ = asked[stage].values()
        (job,) = [job for job in jobs if job.rule == stage and job.state != "TIMEOUT"]
        if stage == "train":  # it ran out of time, and asked for twice as much at its second attempt
            assert [job.state for job in jobs if job.rule == stage and job.number == first.number] == ["TIMEOUT"]
            assert (first.memory, first.minutes, first.cpus) == (memory, minutes, 2)
            memory, minutes = 2 * memory, 2 * minutes
        assert (job.state, job.memory, job.minutes, job.cpus) == ("COMPLETED", memory, minutes, 2 if stage in PARALLEL else 1)
    assert project.table() == local_table(SlowProject)


class SlurmJob(NamedTuple):
    """What Slurm tells of a job: memory in MiB, its time limit in minutes."""

    number: str
    rule: str
    state: str
    memory: int
    minutes: int
    cpus: int


def shown(slurm: Cluster) -> list[SlurmJob]:
    """All jobs of a cluster."""
    found = []
    for line in slurm.run("squeue", "--states=all", "--sort=i", "--noheader", "--format=%i|%k|%T|%m|%l|%C").splitlines():
        number, comment, state, memory, limit, cpus = line.split("|")
        rule = comment.removeprefix("rule_").partition("_wildcards_")[0]
        found.append(SlurmJob(number, rule, state, int(memory.removesuffix("M")), in_minutes(limit), int(cpus)))
    return found


def recorded(slurm: Cluster) -> dict[str, str]:
    """The states of all jobs by number, from the accounting."""
    asked = ["--allocations", "--noheader", "--parsable2", "--format=JobIDRaw,State"]
    return dict(line.split("|") for line in slurm.run("sacct", *asked).splitlines())


def end_the_training(project: SlowProject, slurm: Cluster, run: subprocess.Popen) -> SlurmJob:
    """Move the time limit of the training to now, when it has a checkpoint, and return its job as it was. Then it is fast."""
    checkpoints, deadline = project.folder / "results/checkpoints", time.monotonic() + 900
    while not list(checkpoints.glob("*/checkpoint.previous.pt")):
        assert run.poll() is None and time.monotonic() < deadline, project.said + slurm.logs()
        time.sleep(0.5)
    (job,) = [job for job in shown(slurm) if job.rule == "train" and job.state == "RUNNING"]
    slurm.run("scontrol", "update", f"JobId={job.number}", "EndTime=now+2seconds")
    while (job.number, "TIMEOUT") not in [(other.number, other.state) for other in shown(slurm)]:
        assert time.monotonic() < deadline, slurm.run("scontrol", "show", "job", job.number)
        time.sleep(0.5)
    (project.folder / "fast").touch()
    return job


def in_minutes(limit: str) -> int:
    """A time limit of Slurm, such as ``1-02:30:00`` or ``30:00``, in minutes."""
    days, _, rest = limit.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    hours, minutes, _ = [0] * (3 - len(parts)) + parts
    return 24 * 60 * int(days or 0) + 60 * hours + minutes


def test_a_run_ends_when_no_node_has_the_memory(tmp_path, accounting):
    """On a node with room for the data alone. With accounting, by ``sacct``, the other command for the states of jobs."""
    require(accounting)
    project = ClusterProject(tmp_path)
    choice = ["--slurm-status-command", "sacct"] if accounting else []
    small = ["--set-resources", "prepare:mem_mb=2000"]
    with cluster(2500, accounting) as slurm:
        with project.on(slurm) as run:  # the first job asks for more memory, so Slurm refuses it
            assert run.wait(600) != 0 and "Memory specification can not be satisfied" in project.said, project.said
        before = len(shown(slurm))
        with project.on(slurm, *choice, *small, "--", f"results/models/{MODEL}/model.safetensors") as run:
            assert run.wait(600) != 0
        jobs = shown(slurm)[before:]
    refused = [("train", "FAILED", attempt * 3000) for attempt in (1, 2, 3)]
    assert [(job.rule, job.state, job.memory) for job in jobs] == [("prepare", "COMPLETED", 2000), *refused], project.said
