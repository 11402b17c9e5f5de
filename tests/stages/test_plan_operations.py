"""``fmbench plan``: operations of evaluations and of feature extractors."""

import pytest
import torch
from plans import digits_config, plan_of, plan_of_preset, points_config
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fmbench.config.methods import METHODS
from fmbench.flow.regression import build_loss
from fmbench.stages.plan import workload
from fmbench.stages.plan.operations import ADAPTIVE_NFE
from fmbench.stages.shared.initial_network import initial_network


def passes(found):
    """Forward passes of the evaluations of one model."""
    return found["evaluate_pflop"] * 1e6 / found["forward_gflop"] / found["models"]


def test_every_evaluation_is_counted():
    """A cell counts its NFE for each sample, an adaptive solve an assumed NFE."""

    def of(**evaluation):
        return passes(plan_of(points_config(evaluation=evaluation)))

    assert ADAPTIVE_NFE == 250
    before = of()
    # Of 4,000; a pass and two products in the plane.
    assert of(likelihood={"n": 100}) == pytest.approx(before - 3_900 * ADAPTIVE_NFE * 3)
    assert of(likelihood={"n": 9_999}) == pytest.approx(before)
    hutchinson = of(likelihood={"exact_up_to": 0, "probes": 4})
    assert hutchinson == pytest.approx(before + 4_000 * ADAPTIVE_NFE * (5 - 3))
    forward = of(likelihood={"exact_up_to": 0, "probes": 4, "mode": "forward"})
    assert forward == pytest.approx(before + 4_000 * ADAPTIVE_NFE * (8 - 3))
    one_cell = {"n": 100, "nfe": [4], "solvers": ["euler"]}
    without_few_step = of(few_step=one_cell) - 100 * 4
    assert of(few_step={"n": 100, "nfe": [8, 12], "solvers": ["euler", "rk4"]}) == pytest.approx(without_few_step + 100 * 40)
    without_sweep = of(sweep=one_cell | {"reference_nfe": 40}) - 100 * (4 + 40)
    sweep = one_cell | {"n": 10, "nfe": [4, 8], "reference_nfe": 60}
    assert of(sweep=sweep) == pytest.approx(without_sweep + 10 * (12 + 60))
    assert of(sample={"n": 1010}) - before == pytest.approx(10 * ADAPTIVE_NFE)
    assert of(sample={"shared_batch": 276}) - before == pytest.approx(20 * ADAPTIVE_NFE)
    assert of(learning_curve={"n": 266}) - before == pytest.approx(10 * 5 * ADAPTIVE_NFE)  # five snapshots
    assert of(trajectory={"n": 4300}) - before == pytest.approx(300 * ADAPTIVE_NFE)


def test_the_size_of_the_digits_splits_is_a_parameter():
    def evaluated(test):
        return plan_of(digits_config(parameters={"test": test}, evaluation={"likelihood": {"n": None}}))

    assert passes(evaluated(1000)) - passes(evaluated(360)) == pytest.approx(640 * ADAPTIVE_NFE * 2)


def test_an_exact_nll_against_k_takes_two_solves():
    """64 products and a pass, and the paper's one probe with another pass, where four probes share one."""

    def evaluated(**settings):
        return passes(plan_of(digits_config(evaluation={"dequantisation": {"n": 1000, "draws": [2], **settings}})))

    assert evaluated(exact_up_to=64) - evaluated() == pytest.approx(360 * 2 * ADAPTIVE_NFE * (65 + 2 - 5))


def test_processes_share_the_features_of_samples_and_only_the_first_extractor_sees_learning_curves(monkeypatch):
    """For each of two models 200 samples, 30 at two snapshots, and 50 for four cells and the adaptive solve; the data's 460."""
    monkeypatch.setattr("fmbench.metrics.inception.build", lambda: nn.Conv2d(3, 1, 1))
    cost = workload.network_cost(digits_config(), "digits", (1, 8, 8))
    monkeypatch.setattr(workload, "network_cost", lambda *_: cost)  # counted once
    few_step = {"n": 50, "nfe": [4, 8], "solvers": ["euler", "rk4"]}
    evaluation = {"sample": {"n": 200}, "learning_curve": {"n": 30}, "few_step": few_step}
    found = {}
    plug_in = {"extractor": "user_code:colours"}  # is not counted
    choices = {"none": plug_in, "first": {"extractor": "inception"}, "second": plug_in | {"more_extractors": ["inception"]}}
    for name, choice in choices.items():
        for processes in (1, 2):
            features = {"features": {"reference_n": 100} | choice}
            p = plan_of(digits_config(processes, training={"snapshots": 2}, evaluation=evaluation | features))
            found[name, processes] = p["features_pflop"] * 1e15 / (2 * 3 * 299**2), p["gpu_hours"]["h100"]
    each, more = 2 * 200 + 100 + 360, 2 * (2 * 30 + 5 * 50)
    assert [found[name, 1][0] for name in ("none", "first", "second")] == pytest.approx([0, each + more, each])
    hours = [found["first", processes][1] - found["none", processes][1] for processes in (1, 2)]
    assert hours[1] / hours[0] == pytest.approx((each / 2 + more) / (each + more))


def test_inceptions_operations_are_counted_for_every_image_it_sees():
    """InceptionV3 is published with 5.7 billion multiply-adds an image, at 299 px."""
    found = plan_of_preset("cifar10_1gpu")
    # Samples of five methods, the data's own images; 5 snapshots at 2,500, and 3 solvers at 6 NFE and the adaptive one at 5,000.
    images = 5 * 50_000 + 60_000 + 5 * (5 * 2_500 + (3 * 6 + 1) * 5_000)
    assert found["features_pflop"] * 1e15 / images == pytest.approx(2 * 5.7e9, rel=0.02)


@pytest.mark.parametrize("method", ["fm_ot", "edm", "mean_flow"])
@pytest.mark.parametrize(("kind", "shape"), [("mlp", (2,)), ("unet", (1, 8, 8))])
def test_a_step_has_the_passes_that_are_counted(method, kind, shape):
    """Operations of a loss and its gradients, in those of a forward pass."""
    spans, settings = method == "mean_flow", {"kind": kind} | ({"channels": 16, "depth": 1} if kind == "unet" else {})
    network, x, u = initial_network(settings, shape, 0, spans=spans), torch.randn(4, *shape), torch.linspace(0.2, 0.8, 4)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        network(torch.rand(4, 2) if spans else u, x)
    with FlopCounterMode(display=False) as step:
        build_loss(METHODS[method], 1.0).loss(network, x, x.flip(0), u).mean().backward()
    assert step.get_total_flops() / forward.get_total_flops() == pytest.approx(METHODS[method].passes, rel=0.02)


def test_a_training_that_learns_jumps_is_planned_apart_with_more_passes():
    jumping = {"name": "jumping", "use": "fm_ot", "jumps": "mean_velocity"}
    found = plan_of(points_config(["ddpm", jumping, "fm_ot"]))
    plain, jumps = found["trainings"]
    assert (plain["methods"], jumps["methods"]) == (["ddpm", "fm_ot"], ["jumping"])
    assert (plain["passes"], jumps["passes"]) == (3, 5)
    assert jumps["pflop"] / jumps["models"] == pytest.approx(5 / 3 * plain["pflop"] / plain["models"])
    assert jumps["activation_mib"] == 8 * plain["activation_mib"]


def test_samples_by_jumps_are_counted():
    jumping = {"name": "jumping", "use": "fm_ot", "jumps": "mean_velocity"}
    few_step = {"few_step": {"n": 100, "nfe": [4], "solvers": ["euler"], "jumps": [1, 3]}}
    with_jumps, without = (passes(plan_of(points_config([m], evaluation=few_step))) for m in (jumping, "fm_ot"))
    assert with_jumps - without == pytest.approx(100 * (1 + 3))


def test_the_pairs_of_a_student_are_evaluations_of_its_teachers_network_and_an_oracle_has_none():
    def evaluated(teacher):
        student = {"name": "student", "use": "fm_ot"}
        student |= {"teacher": {"name": teacher, "pairs": 300, "rtol": 1e-4, "atol": 1e-4}} if teacher else {}
        return 2 * passes(plan_of(points_config(["fm_ot", "oracle_ot", student])))  # of two models

    assert evaluated("fm_ot") - evaluated("") == pytest.approx(300 * ADAPTIVE_NFE)
    assert evaluated("oracle_ot") == pytest.approx(evaluated(""))
