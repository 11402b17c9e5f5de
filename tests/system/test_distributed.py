"""Several processes at one job: same numbers as one process up to rounding, one writes, and a failure ends them all."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import together
import torch
from filelock import FileLock
from launch import HERE, launch
from pyarrow.parquet import read_table
from torch import Tensor
from user_code import command, tall_images

from fmbench.config import specs
from fmbench.config.execution import launcher
from fmbench.config.hashing import canonical
from fmbench.config.reading import parse
from fmbench.data.prepared import read
from fmbench.data.writer import write
from fmbench.errors import ConfigError
from fmbench.store.files import read_json
from fmbench.system import distributed
from fmbench.system.distributed import ALONE, Group, join_group


def can_rename_this_machine() -> bool:
    """Whether a process may get a host name of its own here (Linux, with the right to)."""
    try:
        return subprocess.run(["unshare", "--uts", "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def stages(folder: Path) -> None:
    """Run the stages of an oracle on the digits in one process, with three batches each, the last one short."""
    settings = {
        "data": "digits",
        "network": {"kind": "unet", "channels": 8},
        "evaluation": {
            "sample": {"n": 50, "batch": 20, "rtol": 1e-2, "atol": 1e-2, "shared_batch": 4},
            "features": {
                "epochs": 1,
                "batch": 20,
                "reference_n": 100,
                "infinity_sizes": None,
                "more_extractors": ["user_code:colours"],
            },
        },
    }
    method = {"name": "near", "path": "ot", "oracle": {"points": 20, "bandwidth": 0.3}}
    config = parse({"datasets": ["digits"], "methods": [method], "settings": {"digits": settings}})
    model = ("digits", "near", 0)

    def run(stage: str, spec: Any, *folders: str) -> None:
        (folder / f"{stage}.json").write_text(json.dumps(spec))
        said = command(
            stage.replace("_", "-"), "--spec", canonical(spec), *(a if i % 2 == 0 else folder / a for i, a in enumerate(folders))
        )
        assert said.code == 0, said.err

    run("prepare", specs.prepare(config, "digits"), "--out", "digits")
    run("train", specs.train(config, *model), "--data", "digits", "--out", "model", "--checkpoints", "none")
    run("features", specs.features(config, "digits"), "--data", "digits", "--out", "features-1")
    run("sample", specs.evaluate("sample", config, *model), "--data", "digits", "--model", "model", "--out", "sample-1")
    quality = specs.evaluate("sample_quality", config, *model)
    folders = ("--data", "digits", "--samples", "sample-1", "--features", "features-1", "--out", "sample_quality-1")
    run("sample_quality", quality, *folders)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    write(tall_images(train=24, test=6), folder / "tall", {"dataset": "tall"})
    stages(folder)
    said = launch("together.py", folder)
    assert said.returncode == 0, said.stderr
    return folder


@pytest.fixture(scope="module")
def seen(folder) -> list[dict[str, Any]]:
    """What each of the two processes recorded."""
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]


def flat(state: dict[str, Tensor]) -> Tensor:
    return torch.cat([value.flatten() for value in state.values()])


def test_a_process_alone_is_a_group():
    assert (ALONE.rank, ALONE.size, ALONE.main) == (0, 1, True)
    assert ALONE.part(10) == slice(0, 10)
    x = torch.tensor([1.0, 2.0])
    assert ALONE.mean(x) is x
    assert list(ALONE.map(lambda i: i**2, range(4))) == [0, 1, 4, 9]
    ALONE.wait()
    ALONE.close()
    assert not Group(1, 2).main


def test_the_processes_share_the_work(seen):
    assert [(s["rank"], s["size"]) for s in seen] == [(0, 2), (1, 2)]
    assert [s["part"] for s in seen] == [[0, 5], [5, 10]]
    for s in seen:
        assert s["mean"][:2].tolist() == [1.0, 0.5] and s["mean"][2].isnan()
        assert s["map"] == [0, 1, 4, 9, 16, 25, 36]
    assert [s["mine"] for s in seen] == [[0, 2, 4, 6], [1, 3, 5]]


@pytest.mark.parametrize("name", list(together.VARIANTS))
def test_two_processes_train_like_one(name, seen, folder):
    (curve, reason, snapshots, state, averages, seeds), second = (s[name] for s in seen)
    assert (curve, reason, snapshots) == (second[0], "", [4, 8, 12]) == (curve, second[1], second[2])
    assert torch.equal(flat(state), flat(second[3]))
    assert torch.equal(flat(averages[0.5]), flat(second[4][0.5]))
    alone, net = together.run(folder, f"{name}-1", **together.VARIANTS[name])
    # For dropout the first process draws what one process would. No two iterations or processes draw the same.
    assert seeds == together.seeds and len({*seeds, *second[5]}) == 2 * 12
    # fp16 rounds each share of a gradient to 11 bits.
    tolerance = 1e-2 if name == "fp16" else 1e-5
    assert (alone.compile_seconds is not None) == (name == "compiled")
    assert [entry[0] for entry in curve] == [entry[0] for entry in alone.curve] == [3, 6, 9, 12]
    for (_, a, _), (_, b, _) in zip(alone.curve, curve, strict=True):
        assert b == pytest.approx(a, rel=tolerance)
    start = flat(together.network(read(folder / "tall")).state_dict())
    end = flat(net.state_dict())
    # Adam turns the rounding error of a gradient near zero into a full step.
    assert (flat(state) - end).norm() < (0.3 if name == "fp16" else 0.02) * (end - start).norm()


def test_two_processes_resume_to_the_bit(seen):
    for s in seen:
        resumed_from, curve, state = s["killed"]
        assert resumed_from == 4 and curve == s["plain"][0]
        assert torch.equal(flat(state), flat(s["plain"][3]))


def test_three_processes_resume_to_the_bit(tmp_path):
    """A sum of three depends on its order, and DDP uses another order in its first step after a start."""
    write(tall_images(train=24, test=6), tmp_path / "tall", {"dataset": "tall"})
    said = launch("together.py", tmp_path, "resume", processes=3)
    assert said.returncode == 0, said.stderr
    resumed_from, _, whole, net = torch.load(tmp_path / "resumed.pt")
    assert resumed_from == 4 and torch.equal(flat(whole), flat(net))


def test_a_loss_that_is_not_finite_in_one_process_ends_the_training_in_all(seen):
    for s in seen:
        reason, step, state = s["diverged"]
        assert "the loss became nan at iteration 7 " in reason and step == 4
        assert torch.equal(flat(state), flat(seen[0]["diverged"][2]))


@pytest.mark.parametrize("stage", list(together.STAGES))
def test_two_processes_measure_what_one_measures(stage, seen, folder):
    one, two = (sorted(p.name for p in (folder / f"{stage}-{n}").iterdir()) for n in (1, 2))
    assert one == two
    for name in one:
        if name != "rows.parquet":
            assert (folder / f"{stage}-1" / name).read_bytes() == (folder / f"{stage}-2" / name).read_bytes()
    mine, theirs = (read_table(folder / f"{stage}-{n}" / "rows.parquet").to_pylist() for n in (1, 2))
    assert [row["metric"] for row in mine] == [row["metric"] for row in theirs] and len(mine) > 3
    for a, b in zip(mine, theirs, strict=True):
        if a["metric"] != "sample_seconds":
            assert a | {"code_hash": ""} == b | {"code_hash": ""}
            assert a["status"] == "ok", a


def test_the_processes_share_the_features(seen):
    """Batches of 20: of 50 samples; of 100 reference and 360 test images; of test images alone once the reference is kept."""
    for stage, attempt, parts in (
        ("sample_quality", 0, [[20, 10], [20]]),
        ("features", 0, [[20] * 12, [20] * 11]),
        ("features", 1, [[20] * 9, [20] * 9]),
    ):
        assert [s[stage, attempt] for s in seen] == parts, (stage, attempt)


# The command


def job(tmp_path: Path, processes: int) -> tuple[dict[str, Any], list[str | Path]]:
    settings = {
        "data": {"source": "checkerboard", "parameters": {"train": 60, "test": 20}},
        "network": {"kind": "mlp", "width": 8, "depth": 1},
        "training": {"iterations": 8, "batch_size": 6, "log_every": 2},
    }
    config = parse({"datasets": ["board"], "methods": ["fm_ot"], "settings": {"board": settings}, "processes": processes})
    data = tmp_path / "board"
    if not data.exists():
        assert command("prepare", "--spec", canonical(specs.prepare(config, "board")), "--out", data).code == 0
    spec = specs.train(config, "board", "fm_ot", 0)
    return spec, ["--spec", canonical(spec), "--data", data, "--checkpoints", tmp_path / "checkpoints", "--progress", "lines"]


def test_the_command_train_in_two_processes(tmp_path):
    """Only one process writes. If one fails, here the first because of a held lock, all end with its message."""
    spec, arguments = job(tmp_path, 2)
    log = tmp_path / "log"
    train = ["-m", "--", "fmbench", "train", *arguments, "--threads", "2"]
    said = launch(*train, "--out", tmp_path / "two", "--log", log)
    assert said.returncode == 0, said.stderr
    assert said.stderr.count("8 iterations in") == log.read_text().count("8 iterations in") == 1
    assert read_json(tmp_path / "two" / "config.json")["spec"] == spec
    rows = {row["metric"]: row for row in read_table(tmp_path / "two" / "rows.parquet").to_pylist()}
    assert rows["images_seen"]["value"] == 48 and rows["iterations"]["threads"] == 1

    (checkpoints,) = (tmp_path / "checkpoints").iterdir()
    with FileLock(checkpoints / "lock"):
        said = launch(*train, "--out", tmp_path / "other")
    assert said.returncode != 0
    assert said.stderr.count("fmbench: error: another process is training into") == 1
    assert not (tmp_path / "other").exists()

    _, arguments = job(tmp_path, 1)
    assert command("train", *arguments, "--out", tmp_path / "one").code == 0
    curves = [read_table(tmp_path / name / "loss_curve.parquet").to_pydict()["loss"] for name in ("one", "two")]
    assert curves[0] == pytest.approx(curves[1], rel=1e-6)


@pytest.mark.parametrize(("processes", "started"), [(2, 1), (1, 3)])
def test_a_training_started_with_another_number_of_processes_is_refused(processes, started, tmp_path, monkeypatch):
    _, arguments = job(tmp_path, processes)
    monkeypatch.setenv("WORLD_SIZE", str(started))
    said = command("train", *arguments, "--out", tmp_path / "out")
    how = {
        2: "torchrun --standalone --local-addr 127.0.0.1 --nproc-per-node 2 -m -- fmbench train",
        1: "python -m fmbench train",
    }[processes]
    assert said.code == 2
    assert f"this job needs {processes} processes, but {started} were started; start it by {how}" in said.err


def test_processes_that_cannot_look_up_where_to_meet_say_so_at_once(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "nowhere.invalid")
    with pytest.raises(ConfigError, match=r"does not know that address .*--local-addr 127\.0\.0\.1"):
        join_group(torch.device("cpu"))


def test_a_process_that_waits_for_the_others_says_so_in_the_log_of_the_job(tmp_path, monkeypatch):
    log = tmp_path / "train.log"
    line = "process 1 waits at 127.0.0.1:29999 for the other 1; if they do not come, start all of them by torchrun"

    def nobody_comes(*_, **__):
        deadline = time.monotonic() + 60
        while line not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        raise RuntimeError("nobody came")

    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29999"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "_PATIENCE", 0.1)
    monkeypatch.setattr(distributed.dist, "init_process_group", nobody_comes)
    _, arguments = job(tmp_path, 2)
    said = command("train", *arguments, "--out", tmp_path / "out", "--log", log, "--progress", "lines")
    assert said.code == 2 and "cannot find each other (nobody came)" in said.err
    assert line in log.read_text() and line in said.err


@pytest.mark.skipif(not can_rename_this_machine(), reason="needs the right to give a process a host name of its own")
def test_a_machine_that_does_not_know_its_own_name_starts_several_processes():
    start = f"hostname nowhere-at-all; exec {launcher(2).removesuffix(' -m --')} {HERE / 'meet.py'}"
    environment = os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "OMP_NUM_THREADS": "1",
    }
    said = subprocess.run(
        ["unshare", "--uts", "sh", "-c", start], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert said.returncode == 0 and sorted(filter(str.isdigit, said.stdout)) == ["0", "1"], said.stderr  # the lines may mix
