"""``fmbench plan`` counts what the network does."""

import json
from pathlib import Path

import pytest
import torch
from outsider import command
from torch import nn

from fmbench.config import load, parse
from fmbench.errors import ConfigError
from fmbench.stages import plan

ROOT = Path(__file__).parent.parent
TABLE3 = {"cifar10": 153.09, "imagenet32": 209.98}
"""Millions of parameters of the ADM network with the paper's settings, by an independent count."""


def config(methods=("fm_ot",), **network):
    board = {"data": "checkerboard", "network": {"kind": "mlp", "width": 10, "depth": 1} | network}
    return parse({"datasets": ["board"], "methods": list(methods), "seeds": [0, 1, 2], "settings": {"board": board}})


def run(settings, tmp_path, **arguments):
    (found,) = plan.run(settings, ["h100"], tmp_path, arguments.get("probe", 0), 1)["datasets"]
    return found


def test_an_mlp_by_hand(tmp_path):
    found = run(config(), tmp_path)
    assert found["parameters"] == 3 * 10 + 10 + 10 * 2 + 2
    assert found["forward_gflop"] == pytest.approx(2 * (3 * 10 + 10 * 2) / 1e9)
    assert found["models"] == 3 and found["samples_seen"] == found["iterations"] * found["batch_size"]
    assert found["train_pflop"] == pytest.approx(3 * found["train_gflop"] * found["samples_seen"] / 1e6)
    # Kept for the backward pass: the input with its time (3) and the hidden layer before and after its SiLU (10 + 10).
    assert found["activation_mib"] * 2**20 == pytest.approx(4 * (3 + 10 + 10))


def test_the_evaluations_that_figures_are_drawn_from_are_counted(tmp_path):
    """More of each costs what it says, for a model: cells by their NFE, adaptive solves by an assumed number."""

    def petaflop(**evaluation):
        settings = config().model_dump()
        settings["settings"]["board"]["evaluation"] = evaluation
        settings["methods"] = ["fm_ot"]
        found = run(parse(settings), tmp_path)
        return found["evaluate_pflop"] * 1e6 / found["forward_gflop"] / found["models"]

    before = petaflop()
    some = {"n": 100, "nfe": [4], "solvers": ["euler"]}
    no_budget = petaflop(budget=some) - 100 * 4
    assert petaflop(budget={"n": 100, "nfe": [8, 12], "solvers": ["euler", "rk4"]}) == pytest.approx(no_budget + 100 * 40)
    per_sample = plan.ADAPTIVE_NFE
    assert petaflop(along={"n": 266}) - before == pytest.approx(10 * 5 * per_sample)  # five snapshots
    assert petaflop(states={"n": 4300}) - before == pytest.approx(300 * per_sample / 3)  # of the first of three seeds


def test_oracles_cost_no_training(tmp_path):
    assert run(config(["fm_ot", "oracle_vp"]), tmp_path)["models"] == 3
    with pytest.raises(ConfigError, match="trains nothing"):
        run(config(["oracle_vp"]), tmp_path)


def test_the_probe_tries_this_machine(tmp_path):
    found = run(config(), tmp_path, probe=0.2)
    assert found["cpu_samples_per_second"] > 0 and found["cpu_hours"] > 0
    assert run(config(), tmp_path)["cpu_hours"] is None


def test_a_network_too_large_to_be_tried_is_said(tmp_path):
    settings = load(str(ROOT / "config.yaml"), str(ROOT / "configs" / "cifar10.yaml"))
    (found,) = plan.run(settings, [], tmp_path, 0.01, 1)["datasets"]
    assert found["cpu_hours"] is None and any("too long" in note for note in found["notes"])


@pytest.mark.parametrize("preset", sorted(TABLE3))
def test_the_papers_networks_have_their_published_size(preset, tmp_path):
    settings = load(str(ROOT / "config.yaml"), str(ROOT / "configs" / f"{preset}.yaml"))
    (found,) = plan.run(settings, ["h100"], tmp_path, 0, 1)["datasets"]
    assert found["parameters"] / 1e6 == pytest.approx(TABLE3[preset], abs=0.01)


def test_an_unknown_gpu(tmp_path):
    with pytest.raises(ConfigError, match="unknown GPU abacus; known: h100"):
        plan.run(config(), ["abacus"], tmp_path, 0, 1)


def test_the_command_prints_and_writes_the_same(tmp_path):
    threads = torch.get_num_threads()
    out = tmp_path / "plan.json"
    said = command("plan", "--configfile", ROOT / "config.yaml", "--probe", "0", "--out", out)
    torch.set_num_threads(threads)
    written = json.loads(out.read_text())
    assert said.code == 0 and [p["dataset"] for p in written["datasets"]] == ["checkerboard", "digits"]
    assert f"{written['datasets'][1]['parameters']:,} parameters" in said.out


def test_the_disk_by_hand():
    values = config(["fm_ot", "oracle_vp"]).model_dump(exclude={"methods"})
    values["settings"]["board"]["training"] |= {"snapshots": 3, "more_ema_decays": [0.5]}
    values["settings"]["board"]["evaluation"]["sample"]["n"] = 7
    settings = parse(values | {"methods": ["fm_ot", "oracle_vp"]})
    # Two checkpoints of weights, two moments and two averages; the model, one more average, three snapshots twice.
    weights = 2 * (1 + 2 + 2) + 1 + 1 + 2 * 3
    assert plan.disk_bytes(settings, "board", (2,), 100) == 3 * (weights * 400 + 2 * 7 * 2 * 4)


def preset(name):
    return load(str(ROOT / "config.yaml"), str(ROOT / "configs" / f"{name}.yaml"))


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10_1gpu", "imagenet32_1gpu", "imagenet64_1gpu", "imagenet128_1gpu"])
def test_presets_for_one_gpu_take_less_than_a_day_and_fit(name, tmp_path):
    found = run(preset(name), tmp_path)
    assert found["gpu_hours"]["h100"] < 23 and found["batch_gib"] < 60 and found["processes"] == 1
    assert max(found["sample_gib"], found["likelihood_gib"]) < 75
    assert not any("data's own images" in note for note in found["notes"])


@pytest.mark.parametrize(("name", "least"), [("cifar10", 2), ("imagenet32", 4), ("imagenet64", 8), ("imagenet128", 8)])
def test_presets_with_the_papers_settings_fit_into_80_gb(name, least, tmp_path):
    found = run(preset(name), tmp_path)
    assert found["batch_gib"] < 70 and found["processes"] == least
    assert max(found["sample_gib"], found["likelihood_gib"]) < 75


def test_the_peak_of_a_forward_pass_by_hand():
    """Input and first layer, then that layer's output and its activation: 2,000 numbers at once, and the input with them."""
    with torch.device("meta"):
        network = nn.Sequential(nn.Linear(10, 1000), nn.SiLU(), nn.Linear(1000, 10))
    with torch.no_grad(), plan._Live(network.parameters()) as live:
        network(torch.zeros(1, 10, device="meta"))
    assert live.peak == 4 * (10 + 1000 + 1000)


def test_sampling_takes_a_network_less_memory_than_training(tmp_path):
    found = run(preset("cifar10"), tmp_path)
    sampling = found["sample_gib"] * 1024 / 500
    assert sampling < found["activation_mib"] / 4 and found["likelihood_gib"] > found["activation_mib"] * 500 / 1024


def small(processes=1, **training):
    """Digits with a small network on GPUs."""
    digits = {"data": "digits", "network": {"kind": "unet", "channels": 32, "depth": 1}, "training": training}
    settings = {"digits": digits | {"evaluation": {"likelihood": {"n": 20}}}}
    values = {"datasets": ["digits"], "methods": ["fm_ot"], "device": "cuda", "processes": processes, "settings": settings}
    return parse(values)


def test_a_gpu_is_as_fast_as_the_trainings_precision(tmp_path, monkeypatch):
    """Peaks of the data sheet: 67 of float32, of which a larger share is to be had, 495 of TF32, 989 of 16 bits."""
    for bound in ("LEAST_STEP", "TRAFFIC_AUTOCAST"):
        monkeypatch.setattr(plan, bound, 0)
    hours, memory = {}, {}
    for precision in ("fp32", "tf32", "bf16", "fp16"):
        found = run(small(precision=precision), tmp_path)
        evaluation = 1e3 * (found["evaluate_pflop"] + found["features_pflop"]) / (0.6 * 67) / 3600
        hours[precision] = found["gpu_hours"]["h100"] - evaluation
        memory[precision] = found["batch_gib"] - found["state_gib"]
    assert hours["fp32"] / hours["tf32"] == pytest.approx(0.35 * 495 / (0.6 * 67), rel=1e-6)
    assert hours["tf32"] / hours["bf16"] == pytest.approx(989 / 495, rel=1e-6) and hours["bf16"] == hours["fp16"]
    assert memory["fp32"] == memory["tf32"] and memory["bf16"] == memory["fp16"] == pytest.approx(0.75 * memory["fp32"], rel=1e-6)


def test_16_bits_are_bounded_by_memory(tmp_path, monkeypatch):
    """The H100's 3.35 TB/s, for what a sample keeps in float32, several times over."""
    monkeypatch.setattr(plan, "LEAST_STEP", 0)
    found = {compiled: run(small(precision="bf16", compile=compiled), tmp_path) for compiled in (False, True)}
    kept = found[False]["activation_mib"] * 2**20 / 0.75
    assert found[True]["activation_mib"] * 2**20 == pytest.approx(0.31 * kept, rel=1e-4)
    for compiled, passes in ((False, 27.6), (True, 10.8)):
        p = found[compiled]
        evaluation = 1e3 * (p["evaluate_pflop"] + p["features_pflop"]) / (0.6 * 67) / 3600
        seconds = (p["gpu_hours"]["h100"] - evaluation) * 3600
        assert seconds == pytest.approx(passes * kept * p["samples_seen"] * p["models"] / 3.35e12, rel=1e-4)


def test_processes_and_micro_batches_share_the_batch(tmp_path):
    one, two, four = (run(small(p, accumulation=a), tmp_path) for p, a in ((1, 1), (2, 1), (2, 2)))
    at_once = [(p["batch_gib"] - p["state_gib"]) / (p["activation_mib"] / 1024) for p in (one, two, four)]
    assert at_once == pytest.approx([256, 128, 64], rel=1e-6)
    assert one["train_pflop"] == two["train_pflop"] == four["train_pflop"]


def test_inceptions_operations_are_counted_of_every_image_it_sees(tmp_path):
    """5.7 billion multiply-adds an image is what InceptionV3 is published with, at 299 px."""
    found = run(preset("cifar10_1gpu"), tmp_path)
    # Samples of five methods, the data's own images; 5 snapshots at 2,500, and 3 solvers at 6 NFE and the adaptive one at 5,000.
    images = 5 * 50_000 + 60_000 + 5 * (5 * 2_500 + (3 * 6 + 1) * 5_000)
    assert found["features_pflop"] * 1e15 / images == pytest.approx(2 * 5.7e9, rel=0.02)
