"""``fmbench plan`` counts what the network does."""

import json
import re
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn
from user_code import command

from fmbench.config.reading import load, parse
from fmbench.config.training_settings import TrainingSettings
from fmbench.errors import ConfigError
from fmbench.flow.fields import hutchinson_divergence
from fmbench.networks.counting import Live, count
from fmbench.stages import plan
from fmbench.stages.common import initial_network

ROOT = Path(__file__).parent.parent.parent
TABLE3 = {"cifar10": 153.09, "imagenet32": 209.98}
"""Millions of parameters of the ADM network with the paper's settings, by an independent count."""


def config(methods=("fm_ot",), **network):
    board = {"data": "checkerboard", "network": {"kind": "mlp", "width": 10, "depth": 1} | network}
    return parse({"datasets": ["board"], "methods": list(methods), "seeds": [0, 1, 2], "settings": {"board": board}})


def points(**training):
    values = config().model_dump(exclude={"methods"}) | {"methods": ["fm_ot"]}
    values["settings"]["board"]["training"] |= training
    return parse(values)


def run(settings, tmp_path, **arguments):
    (found,) = plan.run(settings, ["h100"], tmp_path, arguments.get("probe", 0), 1)["datasets"]
    return found


def test_an_mlp_by_hand(tmp_path):
    found = run(config(), tmp_path)
    (training,) = found["trainings"]
    assert found["parameters"] == 3 * 10 + 10 + 10 * 2 + 2
    assert found["forward_gflop"] == pytest.approx(2 * (3 * 10 + 10 * 2) / 1e9)
    assert found["models"] == 3 and training["samples_seen"] == training["iterations"] * training["batch_size"]
    assert found["train_pflop"] == pytest.approx(3 * found["train_gflop"] * training["samples_seen"] / 1e6)
    # Kept for the backward pass: the input with its time (3) and the hidden layer before and after its SiLU (10 + 10).
    assert training["activation_mib"] * 2**20 == pytest.approx(4 * (3 + 10 + 10))
    # Weights, gradients, two moments and the average; the training split is held, too.
    assert training["state_gib"] * 2**30 == pytest.approx(4 * 5 * found["parameters"] + 4 * 2 * 200_000)
    (more,) = run(points(more_ema_decays=[0.5, 0.9]), tmp_path)["trainings"]
    assert (more["state_gib"] - training["state_gib"]) * 2**30 == pytest.approx(4 * 2 * found["parameters"])


def test_the_evaluations_that_figures_are_drawn_from_are_counted(tmp_path):
    """More of each costs what it says, for a model: cells by their NFE, adaptive solves by an assumed number."""

    def petaflop(**evaluation):
        settings = config().model_dump()
        settings["settings"]["board"]["evaluation"] = evaluation
        settings["methods"] = ["fm_ot"]
        found = run(parse(settings), tmp_path)
        return found["evaluate_pflop"] * 1e6 / found["forward_gflop"] / found["models"]

    before = petaflop()
    assert petaflop(likelihood={"n": 100}) == pytest.approx(
        before - 3_900 * 250 * 3
    )  # of 4,000; a pass and two products in the plane
    assert petaflop(likelihood={"n": 9_999}) == pytest.approx(before)
    hutchinson = petaflop(likelihood={"exact_up_to": 0, "probes": 4})
    assert hutchinson == pytest.approx(before + 4_000 * 250 * (5 - 3))
    assert petaflop(likelihood={"exact_up_to": 0, "probes": 4, "mode": "forward"}) == pytest.approx(
        before + 4_000 * 250 * (8 - 3)
    )
    some = {"n": 100, "nfe": [4], "solvers": ["euler"]}
    no_budget = petaflop(few_step=some) - 100 * 4
    assert petaflop(few_step={"n": 100, "nfe": [8, 12], "solvers": ["euler", "rk4"]}) == pytest.approx(no_budget + 100 * 40)
    without_sweep = petaflop(sweep=some | {"reference_nfe": 40}) - 100 * (4 + 40)
    assert petaflop(sweep=some | {"n": 10, "nfe": [4, 8], "reference_nfe": 60}) == pytest.approx(without_sweep + 10 * (12 + 60))
    per_sample = plan.ADAPTIVE_NFE
    assert petaflop(sample={"n": 1010}) - before == pytest.approx(10 * per_sample)
    assert petaflop(sample={"shared_batch": 276}) - before == pytest.approx(20 * per_sample)
    assert petaflop(learning_curve={"n": 266}) - before == pytest.approx(10 * 5 * per_sample)  # five snapshots
    assert petaflop(trajectory={"n": 4300}) - before == pytest.approx(300 * per_sample / 3)  # of the first of three seeds


def test_oracles_cost_no_training(tmp_path):
    assert run(config(["fm_ot", "oracle_vp"]), tmp_path)["models"] == 3
    with pytest.raises(ConfigError, match="trains nothing"):
        run(config(["oracle_vp"]), tmp_path)


def test_the_probe_tries_this_machine(tmp_path):
    found = run(config(), tmp_path, probe=0.2)
    assert found["cpu_samples_per_second"] > 0 and found["cpu_hours"] > 0
    assert run(config(), tmp_path)["cpu_hours"] is None


def test_the_hours_of_this_machine_are_of_training_and_of_evaluations(tmp_path, monkeypatch):
    """At 100 batches a second in training, and 1,000 of a forward pass."""
    rates = iter((100, 1000))
    monkeypatch.setattr(plan, "_rate", lambda *_: next(rates))
    found = run(config(), tmp_path, probe=1)
    (training,) = found["trainings"]
    assert found["cpu_samples_per_second"] == 100 * training["batch_size"]
    batches = found["evaluate_pflop"] * 1e6 / found["forward_gflop"] / training["batch_size"]
    assert found["cpu_hours"] * 3600 == pytest.approx(training["iterations"] * 3 / 100 + batches / 1000)


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
    assert plan.disk_bytes(settings, "board", (2,), 100, (30, 10)) == 3 * (weights * 400 + 2 * 7 * 2 * 4) + 40 * 2 * 4
    assert plan.disk_bytes(settings, "board", (1, 2, 1), 100, (30, 10)) == 3 * (weights * 400 + 2 * 7 * 2 * 4) + 40 * 2


def preset(name):
    return load(str(ROOT / "config.yaml"), str(ROOT / "configs" / f"{name}.yaml"))


@cache
def of_preset(name):
    (found,) = plan.run(preset(name), ["h100"], Path("nowhere"), 0, 1)["datasets"]
    return found


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10_1gpu", "imagenet32_1gpu", "imagenet64_1gpu", "imagenet128_1gpu"])
def test_presets_for_one_gpu_take_less_than_a_day_and_fit(name):
    found = of_preset(name)
    assert found["gpu_hours"]["h100"] < 23 and found["batch_gib"] < 60 and found["trainings"][0]["processes"] == 1
    assert max(found["sample_gib"], found["likelihood_gib"]) < 75
    assert not any("data's own images" in note or "fit" in note for note in found["notes"])


@pytest.mark.parametrize(("name", "least"), [("cifar10", 2), ("imagenet32", 4), ("imagenet64", 8), ("imagenet128", 8)])
def test_presets_with_the_papers_settings_fit_into_80_gb(name, least):
    found = of_preset(name)
    assert found["batch_gib"] < 70 and found["trainings"][0]["processes"] == least
    assert max(found["sample_gib"], found["likelihood_gib"]) < 75
    assert not any("fit" in note for note in found["notes"])


def documented():
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) M \| (.*) \|$", (ROOT / "docs" / "cluster.md").read_text(), re.M)
    return {name: [parameters, *rest.split(" | ")] for name, parameters, rest in rows}


@pytest.mark.parametrize("name", sorted(p.stem for p in (ROOT / "configs").glob("*.yaml") if p.stem != "smoke"))
def test_the_memory_that_the_documents_state(name):
    found = of_preset(name)
    (training,) = found["trainings"]
    at_once = training["batch_size"] // (training["processes"] * training["accumulation"])
    values = [f"{found[key]:.3g}" for key in ("batch_gib", "sample_gib", "likelihood_gib")]
    expected = [f"{found['parameters'] / 1e6:.4g}", training["precision"], str(training["processes"]), str(at_once), *values]
    assert documented()[name] == expected


def test_the_peak_of_a_forward_pass_by_hand():
    """Input and first layer, then that layer's output and its activation: 2,000 numbers at once, and the input with them."""
    with torch.device("meta"):
        network = nn.Sequential(nn.Linear(10, 1000), nn.SiLU(), nn.Linear(1000, 10))
    with torch.no_grad(), Live(network.parameters()) as live:
        network(torch.zeros(1, 10, device="meta"))
    assert live.peak == 4 * (10 + 1000 + 1000)


def test_sampling_takes_a_network_less_memory_than_training():
    found = of_preset("cifar10")
    sampling, activations = found["sample_gib"] * 1024 / 500, found["trainings"][0]["activation_mib"]
    assert sampling < activations / 4
    # Frozen weights need no inputs of their layers, so a likelihood keeps somewhat less; its products need some of their own.
    assert 0.9 < found["likelihood_gib"] * 1024 / 500 / activations < 1.1


class Attentive(nn.Module):
    """Attention between 100 pixels of 8 channels."""

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(8, 24)

    def forward(self, t, x):
        q, k, v = self.map(x).unflatten(2, (3, 8)).permute(2, 0, 1, 3).unsqueeze(2).unbind(0)
        return nn.functional.scaled_dot_product_attention(q, k, v).squeeze(1)


def test_attention_keeps_no_matrix_of_all_pixels():
    """Its input, queries, keys and values, what it puts out and a number a pixel; the operations are those of two products."""
    cost = count(Attentive, (100, 8))
    assert cost.kept == 4 * (100 * 8 + 3 * 100 * 8 + 100 * 8 + 100)
    assert cost.flops == 2 * (100 * 8 * 24 + 2 * 100 * 100 * 8)


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.map, self.drop, self.out = nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2)

    def forward(self, t, x):
        return self.out(self.drop(self.map(torch.cat([x, t[:, None]], 1))))


def test_dropout_keeps_its_mask():
    """Beside the inputs of the two layers."""
    assert count(Dropping, (2,)).kept > 4 * (3 + 4)


def test_what_is_counted_of_attention_is_what_the_cpu_keeps():
    network, kept = Attentive(), {}

    def pack(tensor):
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(torch.full((1,), 0.5), torch.zeros(1, 100, 8))
    found = sum(t.untyped_storage().nbytes() for t in kept.values() if t.numel() > network.map.weight.numel())
    # Less than its output and a number a pixel are not there, or more: the matrix of all pixels alone would be 40,000 bytes.
    assert found == pytest.approx(count(Attentive, (100, 8)).kept, rel=0.1)


class Elsewhere(nn.Module):
    """The same attention by other ways to call it."""

    def __init__(self, how):
        super().__init__()
        self.how, self.map = how, nn.Linear(8, 24)
        self.multi = nn.MultiheadAttention(8, 1, batch_first=True) if how == "module" else None

    def forward(self, t, x):
        if self.multi is not None:
            return self.multi(x, x, x, need_weights=False)[0]
        q, k, v = self.map(x).unflatten(2, (3, 8)).permute(2, 0, 1, 3).unsqueeze(2).unbind(0)
        if self.how == "taken before":
            return taken(q, k, v).squeeze(1)
        return nn.functional.scaled_dot_product_attention(query=q, key=k, value=v).squeeze(1)


taken = nn.functional.scaled_dot_product_attention


@pytest.mark.parametrize("how", ["by name", "taken before", "module"])
def test_attention_is_known_however_it_is_called(how):
    matrix = 4 * 1000 * 1000
    assert count(lambda: Elsewhere(how), (1000, 8)).kept < matrix / 10
    assert nn.functional.scaled_dot_product_attention is taken


@pytest.mark.parametrize("probes", [1, 3])
@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_the_peak_of_a_likelihood_is_that_of_its_divergence(mode, probes):
    """As :func:`fmbench.flow.fields.hutchinson_divergence` takes it on the CPU, of a network whose weights are frozen."""
    shape = (3, 16, 16)
    unet = {"kind": "unet", "channels": 32, "channels_multiple": [1, 2], "depth": 1, "attention_resolutions": [8]}
    cost = count(lambda: initial_network(unet, shape, 0), shape)
    network = initial_network(unet, shape, 0).eval().requires_grad_(False)
    x = torch.zeros(2, *shape).to(memory_format=torch.channels_last)
    z = torch.ones(probes, 2, *shape)
    with Live([*network.parameters(), x, z]) as live:
        hutchinson_divergence(lambda t, x: network(t.expand(2), x), torch.tensor(0.5), x, z, mode)
    planned = cost.peak_jvp if mode == "forward" else cost.peak_vjp if probes == 1 else cost.peak_vjps
    # On the CPU torch's operations have some scratch of their own, and norms by sums.
    assert live.peak / 2 == pytest.approx(planned, rel=0.1)


def test_the_plan_takes_the_peak_of_the_mode_and_the_probes():
    """Twenty test images at once, with ten states of each; weights beside them. Draws have the defaults, and fewer images."""
    config, peaks = small(), []
    cost = count(lambda: initial_network(config.dataset("digits").network.model_dump(), (1, 8, 8), 0), (1, 8, 8))
    for mode, probes, exact in (("reverse", 1, 0), ("reverse", 2, 0), ("forward", 1, 0), ("reverse", 1, 64)):
        changes = {"mode": mode, "probes": probes, "exact_up_to": exact, "n": 20}
        evaluation = config.dataset("digits").evaluation
        few = {"likelihood": evaluation.likelihood.model_copy(update=changes)}
        few["dequantisation"] = evaluation.dequantisation.model_copy(update={"n": 2})
        evaluation = evaluation.model_copy(update=few)
        found = plan._likelihood_bytes(evaluation, cost, (1, 8, 8)) - 4 * cost.parameters
        peaks.append(found / 20 - 4 * plan.STAGES_HELD * 64)
    assert peaks == [cost.peak_vjp, cost.peak_vjps, cost.peak_jvp, cost.peak_vjps]
    assert cost.peak < cost.peak_jvp < cost.peak_vjp < cost.peak_vjps


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.map, self.norm = nn.Linear(3, 2), nn.BatchNorm1d(2)

    def forward(self, t, x):
        return self.norm(self.map(torch.cat([x, t[:, None]], 1)))


def test_a_norm_over_the_batch_can_be_counted():
    assert count(Normed, (2,)).flops == 2 * 3 * 2


class Looks(nn.Module):
    """A network that looks at a number, and makes a tensor where it likes."""

    def __init__(self, shape):
        super().__init__()
        self.map = nn.Linear(2, 2)

    def forward(self, t, x):
        if float(x.abs().max()) > 1e6:
            raise ValueError("far away")
        return self.map(x) + torch.arange(2, device="cpu")


class Scales(nn.Module):
    """A network without a product."""

    def __init__(self, shape):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))

    def forward(self, t, x):
        return self.scale * x


def test_a_network_without_a_product_is_not_probed(tmp_path):
    found = run(of_ones_own(Scales), tmp_path, probe=0.2)
    assert found["cpu_hours"] is None and any("can be counted" in note for note in found["notes"])


class Refuses(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.map = nn.Linear(3, 2)

    def forward(self, t, x):
        return self.map(x)


def of_ones_own(network):
    values = config().model_dump(exclude={"methods"}) | {"methods": ["fm_ot"]}
    values["settings"]["board"]["network"] = {"kind": f"{__name__}:{network.__name__}"}
    return parse(values)


def test_a_network_that_looks_at_numbers_is_counted_on_the_cpu(tmp_path):
    found = run(of_ones_own(Looks), tmp_path)
    assert found["parameters"] == 6 and found["forward_gflop"] == pytest.approx(2 * 4 / 1e9)


def test_a_network_that_cannot_be_run_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"the network of board cannot be run on a sample of shape \(2,\)"):
        run(of_ones_own(Refuses), tmp_path)


def test_trainings_of_a_methods_own_are_counted_as_they_are(tmp_path):
    """In either order: the peak is the larger one's, and hours are those of both."""
    big = {"name": "big", "use": "fm_ot", "training": {"batch_size": 8192, "iterations": 9000, "precision": "bf16"}}
    one, other = run(config(["ddpm", big]), tmp_path), run(config([big, "ddpm"]), tmp_path)
    assert [t["methods"] for t in one["trainings"]] == [["ddpm"], ["big"]]
    assert [t["methods"] for t in other["trainings"]] == [["big"], ["ddpm"]]
    assert one["trainings"] == other["trainings"][::-1]
    assert one["batch_gib"] == other["batch_gib"] == one["trainings"][1]["batch_gib"]
    assert one["gpu_hours"] == other["gpu_hours"] and one["models"] == 6
    alike = {"name": "alike", "use": "fm_ot"}
    (both,) = run(config(["ddpm", alike]), tmp_path)["trainings"]
    assert both["methods"] == ["ddpm", "alike"] and both["models"] == 6


LARGE = {stage: {"n": 20_000, "batch": 16_000} for stage in ("sample", "sweep", "learning_curve", "few_step", "trajectory")}


@pytest.mark.parametrize("evaluation", [*({s: v} for s, v in LARGE.items()), {"sample": {"shared_batch": 16_000}}])
def test_the_largest_batch_of_any_solve_is_the_peak(evaluation, tmp_path):
    values = config().model_dump(exclude={"methods"}) | {"methods": ["fm_ot"]}
    values["settings"]["board"]["evaluation"] = evaluation
    found = run(parse(values), tmp_path)
    # Ten states; time, input with it, and the hidden layer before and after its SiLU.
    weights, numbers = 4 * found["parameters"], 16_000 * 4 * (2 * plan.STAGES_HELD + 1 + 3 + 20)
    assert found["sample_gib"] * 2**30 == pytest.approx(weights + numbers, rel=1e-3)


def test_what_does_not_fit_a_gpu_is_said(tmp_path):
    (found,) = plan.run(preset("cifar10"), ["h100", "rtx4090"], tmp_path, 0, 1)["datasets"]
    (note,) = [note for note in found["notes"] if "fit" in note]
    assert "the likelihood" in note and "24 GiB of a rtx4090" in note


def test_processes_hold_their_gradients_twice_and_share_sampling(tmp_path):
    one, two = run(small(1), tmp_path), run(small(2), tmp_path)
    more = two["trainings"][0]["state_gib"] - one["trainings"][0]["state_gib"]
    assert more * 2**30 == pytest.approx(4 * one["parameters"])
    assert two["gpu_hours"]["h100"] < one["gpu_hours"]["h100"]


@pytest.mark.parametrize(("mib", "flips", "copies"), [(1, True, 2), (1, False, 1), (0.1, True, 1), (0.05, True, 0)])
def test_the_training_split_on_the_device(mib, flips, copies):
    training = TrainingSettings.model_construct(resident_mib=mib, flips=flips)
    assert plan._resident_bytes(training, (1, 8, 8), (1437, 360)) == copies * 1437 * 64


def test_a_data_set_whose_shape_is_not_known_yet_does_not_stop_the_others(tmp_path):
    values = config().model_dump(exclude={"methods"}) | {"methods": ["fm_ot"], "datasets": ["mine", "board"]}
    values["settings"]["mine"] = values["settings"]["board"] | {"data": {"source": "array", "parameters": {"path": "x.npy"}}}
    found = plan.run(parse(values), ["h100"], tmp_path, 0, 1)
    assert [p["dataset"] for p in found["datasets"]] == ["board"] and found["unknown"] == ["mine"]
    assert "mine: the shape" in plan.text(found)


def test_the_size_of_the_digits_splits_is_a_parameter(tmp_path):
    def evaluated(test):
        values = small().model_dump(exclude={"methods"}) | {"methods": ["fm_ot"]}
        values["settings"]["digits"]["data"]["parameters"] = {"test": test}
        values["settings"]["digits"]["evaluation"]["likelihood"]["n"] = None
        return run(parse(values), tmp_path)

    more, fewer = evaluated(1000), evaluated(360)
    passes = (more["evaluate_pflop"] - fewer["evaluate_pflop"]) * 1e6 / more["forward_gflop"] / more["models"]
    assert passes == pytest.approx(640 * plan.ADAPTIVE_NFE * 2)


def test_exact_draws_are_two_solves(tmp_path):
    """64 products and a pass, and the paper's one probe with a pass of its own, where four probes share one."""

    def evaluated(**draws):
        values = small().model_dump(exclude={"methods"}) | {"methods": ["fm_ot"]}
        values["settings"]["digits"]["evaluation"]["dequantisation"] = {"n": 1000, "draws": [2], **draws}
        return run(parse(values), tmp_path)

    exact, averaged = evaluated(exact_up_to=64), evaluated()
    passes = (exact["evaluate_pflop"] - averaged["evaluate_pflop"]) * 1e6 / exact["forward_gflop"] / exact["models"]
    assert passes == pytest.approx(360 * 2 * plan.ADAPTIVE_NFE * (65 + 2 - 5))


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
        memory[precision] = found["batch_gib"] - found["trainings"][0]["state_gib"]
    assert hours["fp32"] / hours["tf32"] == pytest.approx(0.35 * 495 / (0.6 * 67), rel=1e-6)
    assert hours["tf32"] / hours["bf16"] == pytest.approx(989 / 495, rel=1e-6) and hours["bf16"] == hours["fp16"]
    assert memory["fp32"] == memory["tf32"] and memory["bf16"] == memory["fp16"] == pytest.approx(0.84 * memory["fp32"], rel=1e-6)


@pytest.mark.parametrize("accumulation", [1, 4])
def test_a_step_takes_a_gpu_the_launches_of_its_micro_batches(accumulation, tmp_path):
    (training,) = run(points(accumulation=accumulation), tmp_path)["trainings"]
    seconds = training["iterations"] * training["models"] * accumulation * plan.LEAST_STEP
    assert training["gpu_hours"]["h100"] * 3600 == pytest.approx(seconds)


def test_16_bits_are_bounded_by_memory(tmp_path, monkeypatch):
    """The H100's 3.35 TB/s, for what a sample keeps in float32, several times over."""
    monkeypatch.setattr(plan, "LEAST_STEP", 0)
    found = {compiled: run(small(precision="bf16", compile=compiled), tmp_path) for compiled in (False, True)}
    kept = found[False]["trainings"][0]["activation_mib"] * 2**20 / 0.84
    assert found[True]["trainings"][0]["activation_mib"] * 2**20 == pytest.approx(0.35 * kept, rel=1e-4)
    for compiled, passes in ((False, 31.1), (True, 12.2)):
        p = found[compiled]
        evaluation = 1e3 * (p["evaluate_pflop"] + p["features_pflop"]) / (0.6 * 67) / 3600
        seconds = (p["gpu_hours"]["h100"] - evaluation) * 3600
        assert seconds == pytest.approx(passes * kept * p["trainings"][0]["samples_seen"] * p["models"] / 3.35e12, rel=1e-4)


def test_processes_and_micro_batches_share_the_batch(tmp_path):
    one, two, four = (run(small(p, accumulation=a), tmp_path) for p, a in ((1, 1), (2, 1), (2, 2)))
    trainings = [p["trainings"][0] for p in (one, two, four)]
    at_once = [(t["batch_gib"] - t["state_gib"]) / (t["activation_mib"] / 1024) for t in trainings]
    assert at_once == pytest.approx([256, 128, 64], rel=1e-6)
    assert one["train_pflop"] == two["train_pflop"] == four["train_pflop"]


def test_processes_share_the_features_of_samples_and_the_first_extractor_has_more_to_see(tmp_path, monkeypatch):
    """Of each of two models 200 samples, 30 at two snapshots, and 50 of four cells and the adaptive solve; the data's 460."""
    monkeypatch.setattr("fmbench.metrics.inception.build", lambda: nn.Conv2d(3, 1, 1))
    cost = plan._cost(small(), "digits", (1, 8, 8))
    monkeypatch.setattr(plan, "_cost", lambda *_: cost)  # counted once
    evaluation = {
        "sample": {"n": 200},
        "learning_curve": {"n": 30},
        "few_step": {"n": 50, "nfe": [4, 8], "solvers": ["euler", "rk4"]},
    }
    found = {}
    for name, choice in {"none": {}, "first": {"extractor": "inception"}, "second": {"more_extractors": ["inception"]}}.items():
        for processes in (1, 2):
            values = small(processes, snapshots=2).model_dump(exclude={"methods"}) | {"methods": ["fm_ot"]}
            values["settings"]["digits"]["evaluation"] = evaluation | {"features": {"reference_n": 100} | choice}
            p = run(parse(values), tmp_path)
            found[name, processes] = p["features_pflop"] * 1e15 / (2 * 3 * 299**2), p["gpu_hours"]["h100"]
    each, more = 2 * 200 + 100 + 360, 2 * (2 * 30 + 5 * 50)
    assert [found[name, 1][0] for name in ("none", "first", "second")] == pytest.approx([0, each + more, each])
    hours = [found["first", processes][1] - found["none", processes][1] for processes in (1, 2)]
    assert hours[1] / hours[0] == pytest.approx((each / 2 + more) / (each + more))


def test_inceptions_operations_are_counted_of_every_image_it_sees():
    """5.7 billion multiply-adds an image is what InceptionV3 is published with, at 299 px."""
    found = of_preset("cifar10_1gpu")
    # Samples of five methods, the data's own images; 5 snapshots at 2,500, and 3 solvers at 6 NFE and the adaptive one at 5,000.
    images = 5 * 50_000 + 60_000 + 5 * (5 * 2_500 + (3 * 6 + 1) * 5_000)
    assert found["features_pflop"] * 1e15 / images == pytest.approx(2 * 5.7e9, rel=0.02)
