"""`fmbench status`: the state of each job by its files, its log and the processes of this machine, and the time left."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from user_code import command

from fmbench.config.config import Config
from fmbench.config.reading import parse
from fmbench.workflow.jobs import Job, jobs
from fmbench.workflow.needs import Needs, count_needs, read_needs
from fmbench.workflow.status import DONE, FAILED, LEFT, RUNNING, STATES, UNFINISHED, Found, TimeLeft, status, text, time_left

BOARD = {"data": "checkerboard", "network": {"kind": "mlp"}}


@pytest.fixture
def config(tmp_path, monkeypatch) -> Config:
    monkeypatch.chdir(tmp_path)
    values = {"seeds": [0, 1], "datasets": ["board"], "methods": ["fm_ot", "oracle_ot"], "settings": {"board": BOARD}}
    return parse(values | {"tracking": {"enabled": False}})


def of(config: Config, rule: str, name: str) -> Job:
    (job,) = [job for job in jobs(config) if (job.rule, job.of) == (rule, name)]
    return job


def write(path: str, text: str = "") -> None:
    Path("results", path).parent.mkdir(parents=True, exist_ok=True)
    Path("results", path).write_text(text)


def test_an_oracle_has_no_learning_curve_and_a_run_without_images_no_table_4(config):
    count = Counter(job.rule for job in jobs(config))
    assert count["train"] == count["sample"] == count["few_step"] == 4 and count["learning_curve"] == 2
    assert not {"table4", "dequantisation", "super_resolution", "baselines", "mlflow_summary"} & set(count)
    assert len({job.output for job in jobs(config)}) == len({job.log for job in jobs(config)}) == len(jobs(config))


def test_a_job_is_done_running_failed_unfinished_or_left(config, tmp_path):
    done, failed = of(config, "prepare", "board"), of(config, "train", "board/fm_ot/0")
    killed, running = of(config, "train", "board/fm_ot/1"), of(config, "sample", "board/fm_ot/0")
    removed = of(config, "features", "board")
    write(done.output)
    write(
        done.log,
        "2026-11-30 12:00:00 took 9.0 s, 0.1 s of processor time\n2026-11-30 13:00:00 took 2.5 s, 0.3 s of processor time\n",
    )
    write(
        failed.log,
        "2026-11-30 12:00:00 train board/fm_ot/0: error: 3 is no such line\n2026-11-30 12:00:01 fmbench: error: no space\n",
    )
    write(killed.log, "2026-11-30 12:00:00 train board/fm_ot/1: 300/5000 iterations, loss 0.2\n")
    write(removed.log, "2026-11-30 12:00:00 took 2.5 s, 0.3 s of processor time\n")
    write(running.log, "")
    words = ["-c", "import time; print(flush=True); time.sleep(60)", "fmbench", "--log", f"results/{running.log}"]
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"\n"
        found = {one.job: one for one in status(config)}
    finally:
        process.kill()
        process.wait()
    states = {job: found[job].state for job in (done, failed, killed, running, removed)}
    assert list(states.values()) == [DONE, FAILED, UNFINISHED, RUNNING, LEFT]
    assert Counter(one.state for one in found.values()) == {**dict.fromkeys(STATES, 1), LEFT: len(found) - 4}
    assert found[done].seconds == 2.5
    said = text(list(found.values()), config, "snakemake --cores all")
    assert f"{len(found)} jobs: 1 done, 1 running, 1 failed, 1 unfinished, {len(found) - 4} left" in said
    assert "failed: train board/fm_ot/0: fmbench: error: no space; log: results/logs/train/board/fm_ot/0.log" in said
    assert "unfinished: train board/fm_ot/1: 300/5000 iterations, loss 0.2; log:" in said
    assert said.splitlines()[-1] == "next: wait; `fmbench status` shows the state again"


def test_the_time_left_is_that_of_the_most_similar_done_jobs():
    def found(rule: str, name: str, seconds: float | None = None) -> Found:
        return Found(Job(rule, name, "o", "l"), LEFT if seconds is None else DONE, seconds, "")

    run = [
        *(found("train", "a/slow/0", 10.0), found("train", "a/slow/1", 20.0), found("train", "a/fast/0", 1.0)),
        found("train", "a/slow/2"),  # the mean of its method: 15
        found("train", "a/new/0"),  # of its data set: 31 / 3
        found("train", "b/slow/0"),  # of its rule: 31 / 3
        found("sample", "a/slow/0"),  # nothing is known
    ]
    assert time_left(run) == TimeLeft(pytest.approx(15 + 2 * 31 / 3), 3, 0, 1)
    plan = Needs({"a": {"features": {"seconds": 5}}}, {"a": {"slow": {"train": {"seconds": 999}, "sample": {"seconds": 70}}}})
    run += [found("features", "a"), found("features", "b"), found("figure", "a")]
    assert time_left(run, plan) == TimeLeft(pytest.approx(15 + 2 * 31 / 3 + 70 + 5), 3, 2, 2)


def test_before_any_job_is_done_the_time_left_is_that_of_the_plan(config):
    begin = status(config)
    assert "`fmbench plan` estimates a whole run" in text(begin, config, "next")
    count_needs(config)
    counted = len([job for job in jobs(config) if job.of.split("/")[0] == "board"])
    assert time_left(begin, read_needs(config))[1:] == (0, counted, len(begin) - counted)
    said = text(begin, config, "next")
    assert f"time left for {counted} jobs: about " in said and "if one runs at a time, by the plan\n" in said
    write("models/board/fm_ot/0/rows.parquet")
    write("logs/train/board/fm_ot/0.log", "2026-11-30 12:00:00 took 7.0 s, 0.1 s of processor time\n")
    said = text(status(config), config, "next")
    assert f"if one runs at a time, 3 as jobs like them took and {counted - 4} by the plan\n" in said


def test_the_command_says_what_comes_next(config, tmp_path):
    Path("config.yaml").write_text(
        "seeds: [0]\ndatasets: [board]\nmethods: [fm_ot]\nsettings: {board: {data: checkerboard, network: {kind: mlp}}}\n"
    )
    Path("more.yaml").write_text("tracking: {enabled: false}\n")
    said = command("status", "--configfile", "config.yaml", "--configfile", "more.yaml")
    assert said.code == 0 and said.out.splitlines()[-1] == "next: snakemake --cores all --configfile more.yaml"
    assert not Path("results").exists()
    for job in jobs(config):
        write(job.output)
    for name in ("fm_ot", "oracle_ot"):
        assert (Path("results") / of(config, "train", f"board/{name}/0").output).exists()
    Path("more.yaml").write_text("tracking: {enabled: false}\nseeds: [0, 1]\nmethods: [fm_ot, oracle_ot]\n")
    said = command("status", "--configfile", "config.yaml", "--configfile", "more.yaml")
    assert said.out.splitlines()[-1] == "next: fmbench reproduce --results results"
