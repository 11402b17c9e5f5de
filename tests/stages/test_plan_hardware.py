"""``fmbench plan``: hours of GPUs by their data sheets, and of this machine by a probe."""

import pytest
import torch
from plans import digits_config, plan_of, points_config, preset
from torch import nn

from fmbench.stages.plan import hardware, probe
from fmbench.stages.plan.estimate import run


def training_hours(found):
    """Hours of an H100 without those of evaluations, which run at 60 % of 67 TFLOP/s."""
    evaluation = 1e3 * (found["evaluate_pflop"] + found["features_pflop"]) / (0.6 * 67) / 3600
    return found["gpu_hours"]["h100"] - evaluation


def test_a_gpu_is_as_fast_as_the_trainings_precision(monkeypatch):
    """Peaks of the data sheet: 67 of float32, a larger share of which can be used, 495 of TF32, 989 of 16 bits."""
    for bound in ("LEAST_STEP", "TRAFFIC_AUTOCAST"):
        monkeypatch.setattr(hardware, bound, 0)
    hours, memory = {}, {}
    for precision in ("fp32", "tf32", "bf16", "fp16"):
        found = plan_of(digits_config(training={"precision": precision}))
        hours[precision] = training_hours(found)
        memory[precision] = found["batch_gib"] - found["trainings"][0]["state_gib"]
    assert hours["fp32"] / hours["tf32"] == pytest.approx(0.35 * 495 / (0.6 * 67), rel=1e-6)
    assert hours["tf32"] / hours["bf16"] == pytest.approx(989 / 495, rel=1e-6) and hours["bf16"] == hours["fp16"]
    assert memory["fp32"] == memory["tf32"] and memory["bf16"] == memory["fp16"] == pytest.approx(0.84 * memory["fp32"], rel=1e-6)


@pytest.mark.parametrize("accumulation", [1, 4])
def test_a_step_takes_at_least_the_launches_of_its_micro_batches(accumulation):
    (training,) = plan_of(points_config(training={"accumulation": accumulation}))["trainings"]
    seconds = training["iterations"] * training["models"] * accumulation * hardware.LEAST_STEP
    assert training["gpu_hours"]["h100"] * 3600 == pytest.approx(seconds)


def test_16_bit_training_is_bound_by_memory(monkeypatch):
    """By the H100's 3.35 TB/s, for what a sample keeps in float32, several times over."""
    monkeypatch.setattr(hardware, "LEAST_STEP", 0)
    found = {compiled: plan_of(digits_config(training={"precision": "bf16", "compile": compiled})) for compiled in (False, True)}
    kept = found[False]["trainings"][0]["activation_mib"] * 2**20 / 0.84
    assert found[True]["trainings"][0]["activation_mib"] * 2**20 == pytest.approx(0.35 * kept, rel=1e-4)
    for compiled, passes in ((False, 31.1), (True, 12.2)):
        p = found[compiled]
        bytes_moved = passes * kept * p["trainings"][0]["samples_seen"] * p["models"]
        assert training_hours(p) * 3600 == pytest.approx(bytes_moved / 3.35e12, rel=1e-4)


# The probe of this machine


def test_the_probe_tries_this_machine():
    found = plan_of(points_config(), probe=0.2)
    assert found["cpu_samples_per_second"] > 0 and found["cpu_hours"] > 0
    assert plan_of(points_config())["cpu_hours"] is None


def test_the_hours_of_this_machine_are_of_training_and_of_evaluations(monkeypatch):
    """At 100 batches a second in training, and 1,000 of a forward pass."""
    rates = iter((100, 1000))
    monkeypatch.setattr(probe, "calls_per_second", lambda *_: next(rates))
    found = plan_of(points_config(), probe=1)
    (training,) = found["trainings"]
    assert found["cpu_samples_per_second"] == 100 * training["batch_size"]
    batches = found["evaluate_pflop"] * 1e6 / found["forward_gflop"] / training["batch_size"]
    assert found["cpu_hours"] * 3600 == pytest.approx(training["iterations"] * 3 / 100 + batches / 1000)


def test_a_network_too_large_to_be_probed_gives_a_note(tmp_path):
    (found,) = run(preset("cifar10"), [], tmp_path, 0.01, 1)["datasets"]
    assert found["cpu_hours"] is None and any("too long" in note for note in found["notes"])


class Scale(nn.Module):
    """A network without a product."""

    def __init__(self, shape):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))

    def forward(self, t, x):
        return self.scale * x


def test_a_network_without_a_product_is_not_probed():
    found = plan_of(points_config(network={"kind": f"{__name__}:Scale"}), probe=0.2)
    assert found["cpu_hours"] is None and any("can be counted" in note for note in found["notes"])
