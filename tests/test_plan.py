"""``fmbench plan`` counts what the network does."""

import json
from pathlib import Path

import pytest
import torch
from outsider import command

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
