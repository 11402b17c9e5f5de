"""The profile for Slurm on a real cluster of one node: the same numbers, the resources of the plan, time limits, memory."""

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from slurm_cluster import Cluster, cluster, require
from test_workflow import CONFIG, Project

pytestmark = pytest.mark.workflow

MODEL = "checkerboard/fm_ot/0"
PARALLEL = ("train", "sample", "sample_quality")
"""The stages that run in all processes."""
STAGES = ("train", "sample", "likelihood", "sweep", "sample_quality")
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
    """A project that runs on a cluster: two processes train its one model, slowly until there is a file ``fast``."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "slow.py").write_text(SLOW)
        settings = json.loads(json.dumps(CONFIG["settings"]))
        settings["checkerboard"]["network"] = {"kind": "slow:Slow", "parameters": {"width": 32, "depth": 2}}
        settings["checkerboard"]["training"] |= {"iterations": 400, "checkpoint_every": 20}
        self.configure(processes=2, methods=["fm_ot"], settings=settings)

    def on(self, slurm: Cluster) -> subprocess.Popen:
        """Start snakemake with the profile. Only the pause between two looks at the jobs is shorter than users have it."""
        command = self.command("--workflow-profile", "profiles/slurm", "results/table1.csv")
        command += ["--slurm-init-seconds-before-status-checks", "3"]
        with open(self.folder / "run.log", "w") as log:
            return subprocess.Popen(command, cwd=self.folder, env=self.environment | slurm.environment, stdout=log, stderr=log)

    @property
    def said(self) -> str:
        return (self.folder / "run.log").read_text()


@pytest.mark.skipif("FMBENCH_SLURM" not in os.environ, reason="takes minutes: set FMBENCH_SLURM=1")
def test_a_run_on_slurm_gives_the_table_of_a_local_run(tmp_path):
    """By the profile as it is, on a cluster without accounting. The training is ended by its time limit, and continues."""
    require()
    remote, local = (ClusterProject(tmp_path / name) for name in ("remote", "local"))
    with cluster(memory=40_000) as slurm:
        run = remote.on(slurm)
        try:
            first = end_the_training(remote, slurm, run)
            run.wait(1500)
        finally:
            run.kill()
        assert run.returncode == 0, remote.said + slurm.logs()
        jobs = shown(slurm)
    log = (remote.folder / f"results/logs/train/{MODEL}.log").read_text()
    resumed = re.search(r"resumed from the checkpoint at iteration (\d+)", log)
    assert resumed is not None and int(resumed[1]) >= 20

    asked = json.loads((remote.folder / "results/resources.json").read_text())["jobs"]["checkerboard"]["fm_ot"]
    for stage in STAGES:
        memory, minutes = asked[stage]
        (job,) = [job for job in jobs if job.rule == stage and job.state != "TIMEOUT"]
        if stage == "train":  # it ran out of time, and asked for twice as much at its second attempt
            assert [job.state for job in jobs if job.rule == stage and job.number == first.number] == ["TIMEOUT"]
            assert (first.memory, first.minutes, first.cpus) == (memory, minutes, 2)
            memory, minutes = 2 * memory, 2 * minutes
        assert (job.state, job.memory, job.minutes, job.cpus) == ("COMPLETED", memory, minutes, 2 if stage in PARALLEL else 1)

    (local.folder / "fast").touch()
    local.run("results/table1.csv")
    assert remote.table() == local.table()


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
    for line in slurm.run("squeue", "--states=all", "--noheader", "--format=%i|%k|%T|%m|%l|%C").splitlines():
        number, comment, state, memory, limit, cpus = line.split("|")
        rule = comment.removeprefix("rule_").partition("_wildcards_")[0]
        found.append(SlurmJob(number, rule, state, int(memory.removesuffix("M")), in_minutes(limit), int(cpus)))
    return found


def end_the_training(project: ClusterProject, slurm: Cluster, run: subprocess.Popen) -> SlurmJob:
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


def test_a_node_that_is_too_small_is_named_at_once(tmp_path):
    """Slurm refuses the job. The run ends with Slurm's reason instead of waiting."""
    require()
    project = ClusterProject(tmp_path)
    with cluster(memory=8000) as slurm:
        run = project.on(slurm)
        try:
            run.wait(600)
        finally:
            run.kill()
    assert run.returncode != 0 and "Memory specification can not be satisfied" in project.said, project.said
