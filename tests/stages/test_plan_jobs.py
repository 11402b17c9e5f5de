"""What each job asks a cluster for."""

from pathlib import Path

import pytest
from tiny_benchmark import VALUES

from fmbench.config.config import Config
from fmbench.config.reading import load, parse
from fmbench.stages.plan import jobs
from fmbench.stages.plan.estimate import run
from fmbench.stages.plan.jobs import BASE_MIB, BASE_MINUTES, MEMORY_FACTOR, TIME_FACTOR, asked_memory, asked_minutes
from fmbench.store.files import read_json
from fmbench.workflow.needs import FILE, MOST_MINUTES, SMALL, UNKNOWN, Needs, count_needs, read_needs

ROOT = Path(__file__).parent.parent.parent


def test_a_request_is_a_constant_and_a_multiple_of_the_count():
    assert asked_memory(2**30) == BASE_MIB + MEMORY_FACTOR * 1024 and asked_memory(0) == BASE_MIB
    assert asked_minutes(3600) == BASE_MINUTES + TIME_FACTOR * 60 and asked_minutes(0) == BASE_MINUTES


def test_small_trainings_ask_for_little_and_those_of_cifar10_for_what_the_plan_says(tmp_path):
    default = jobs.needs(load(str(ROOT / "config.yaml")), tmp_path)
    assert all(stages["train"]["memory_mib"] < 4096 for methods in default["models"].values() for stages in methods.values())
    assert all(asked["memory_mib"] < 4096 for stages in default["datasets"].values() for asked in stages.values())
    config = load(str(ROOT / "config.yaml"), str(ROOT / "configs" / "cifar10_1gpu.yaml"))
    (plan,) = run(config, ["h100"], tmp_path, 0, 1)["datasets"]
    memory, minutes, seconds = jobs.needs(config, tmp_path)["models"]["cifar10"]["fm_ot"]["train"].values()
    assert memory == pytest.approx(BASE_MIB + MEMORY_FACTOR * 1024 * plan["trainings"][0]["batch_gib"], abs=1)
    (training,) = plan["trainings"]
    assert seconds == pytest.approx(3600 * training["gpu_hours"]["h100"] / training["models"], abs=1)
    assert minutes == pytest.approx(BASE_MINUTES + TIME_FACTOR * seconds / 60, abs=1)


def test_all_processes_of_a_training_are_counted(tmp_path):
    values = VALUES | {"datasets": ["board"], "methods": ["fm_ot"]}
    one = jobs.needs(parse(values), tmp_path)["models"]["board"]["fm_ot"]
    two = jobs.needs(parse(values | {"processes": 2}), tmp_path)["models"]["board"]["fm_ot"]
    assert two["likelihood"] == one["likelihood"]
    big = {"board": VALUES["settings"]["board"] | {"network": {"kind": "mlp", "width": 2048, "depth": 6}}}
    one, two = (
        jobs.needs(parse(values | {"settings": big, "processes": n}), tmp_path)["models"]["board"]["fm_ot"]["train"]["memory_mib"]
        - BASE_MIB
        for n in (1, 2)
    )
    assert two == pytest.approx(2 * one * 6 / 5, rel=0.01)  # five copies of the weights, and buffers for two processes


def test_a_training_that_learns_jumps_asks_for_more_time_and_memory(tmp_path):
    found = jobs.needs(load(str(ROOT / "config.yaml"), str(ROOT / "configs" / "zoo.yaml")), tmp_path)["models"]["digits"]
    jumping, plain = found["mean_flow"]["train"], found["fm_ot"]["train"]
    assert jumping["memory_mib"] > plain["memory_mib"] and jumping["minutes"] > plain["minutes"]
    assert found["rectified_flow_2"]["pairs"]["minutes"] > BASE_MINUTES and "pairs" not in found["fm_ot"]


@pytest.fixture
def config(tmp_path) -> Config:
    return parse(VALUES | {"results_dir": str(tmp_path / "results"), "datasets": ["board"]})


def test_counts_hold_for_the_settings_that_they_were_made_of(config):
    assert read_needs(config) is None
    count_needs(config)
    found = read_needs(config)
    expected = jobs.needs(config, Path(config.results_dir))
    of = expected["models"]["board"]["fm_ot"]["sweep"], expected["datasets"]["board"]["features"]
    assert found is not None and of == tuple(
        {"memory_mib": found.memory(*job), "minutes": found.minutes(*job), "seconds": found.seconds(*job)}
        for job in (("sweep", "board", "fm_ot"), ("features", "board"))
    )
    assert read_needs(parse(config.model_dump() | {"seeds": [8]})) is None


def test_data_of_unknown_shape_are_counted_after_their_preparation(tmp_path):
    config = parse(VALUES | {"results_dir": str(tmp_path), "datasets": ["board", "tall"]})
    count_needs(config)
    assert read_json(tmp_path / FILE)["key"] == "" and set(read_json(tmp_path / FILE)["datasets"]) == {"board"}


def test_a_job_asks_for_more_at_each_attempt():
    train, features = ({"memory_mib": memory, "minutes": 60, "seconds": 450} for memory in (4000, 3500))
    found = Needs({"d": {"features": features}}, {"d": {"m": {"train": train}}})
    assert [found.memory("train", "d", "m", attempt) for attempt in (1, 2, 3)] == [4000, 8000, 12000]
    assert [found.minutes("train", "d", "m", attempt) for attempt in (1, 2)] == [60, 120]
    assert found.minutes("train", "d", "m", 1000) == MOST_MINUTES
    assert found.memory("features", "d") == 3500 and found.seconds("features", "d") == 450
    for uncounted in (("sweep", "d", "m"), ("train", "e", "m"), ("prepare", "d"), ("train", "d")):
        assert (found.memory(*uncounted), found.minutes(*uncounted)) == UNKNOWN and found.seconds(*uncounted) is None
    assert (found.memory("table1"), found.minutes("table1", attempt=2)) == (SMALL[0], 2 * SMALL[1])
