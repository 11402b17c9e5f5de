"""``fmbench plan``: peaks of memory and bytes on disk, of small configs and of the presets."""

import re
from pathlib import Path

import pytest
import torch
from plans import ROOT, digits_config, plan_of, plan_of_preset, points_config, preset

from fmbench.config import specs
from fmbench.config.training_settings import TrainingSettings
from fmbench.data.conditions import UNCONDITIONAL, Labels, LowResolution
from fmbench.data.prepared import read
from fmbench.networks.counting import Cost
from fmbench.stages import prepare
from fmbench.stages.plan.estimate import run
from fmbench.stages.plan.memory import STAGES_HELD, disk_bytes, likelihood_bytes, resident_bytes, solve_bytes
from fmbench.stages.plan.workload import Workload, read_workload
from fmbench.system.progress import Console
from fmbench.training.batches import arrays_of

LOW = {"low_resolution": {"factor": 2}}

# Disk


def test_the_disk_by_hand():
    training, evaluation = {"snapshots": 3, "more_ema_decays": [0.5]}, {"sample": {"n": 7}}
    config = points_config(["fm_ot", "oracle_vp"], training=training, evaluation=evaluation)

    def disk(shape, sizes=None, condition=UNCONDITIONAL):
        return disk_bytes(Workload(config, "board", shape, sizes, Cost(100, 0, 0, 0, 0, 0, 0), condition))

    # Two checkpoints of weights, two moments and two averages; the model, one more average, three snapshots twice.
    weights = 2 * (1 + 2 + 2) + 1 + 1 + 2 * 3
    of_points, of_images = (3 * (weights * 400 + 2 * 7 * numbers * 4) for numbers in (2, 12))
    assert disk((2,)) == of_points and disk((2,), (30, 10)) == of_points + 40 * 2 * 4
    assert disk((3, 2, 2), (30, 10)) == of_images + 40 * 12
    assert disk((3, 2, 2), (30, 10), LowResolution(2, "area", 256)) == of_images + 40 * (12 + 3)
    assert disk((2,), (30, 10), Labels(5)) == of_points + 40 * (8 + 8)


@pytest.mark.parametrize("condition", [None, "label", LOW])
def test_prepared_samples_are_counted_with_their_conditions(condition, tmp_path):
    """Against the arrays that a training reads, and what a batch of it is given."""
    config = digits_config(condition=condition)
    prepare.run(specs.prepare(config, "digits"), tmp_path / "data" / "digits", Console("prepare", "none"))
    dataset, work = read(tmp_path / "data" / "digits"), read_workload(config, "digits", tmp_path)
    size = sum(array.nbytes for array in arrays_of(dataset))
    assert work.sizes[0] * work.stored == size
    assert work.given == sum(t.nbytes for t in dataset.conditions([0], torch.device("cpu")))
    for room, held in ((size, size), (size - 1, 0)):
        assert resident_bytes(work, TrainingSettings.model_construct(resident_mib=room / 2**20, flips=False)) == held


# Training


@pytest.mark.parametrize(("mib", "flips", "copies"), [(1, True, 2), (1, False, 1), (0.1, True, 1), (0.05, True, 0)])
def test_the_training_split_on_the_device(mib, flips, copies):
    training = TrainingSettings.model_construct(resident_mib=mib, flips=flips)
    assert resident_bytes(read_workload(digits_config(), "digits", Path("nowhere")), training) == copies * 1437 * 64


def test_processes_hold_their_gradients_twice_and_share_sampling():
    one, two = plan_of(digits_config(1)), plan_of(digits_config(2))
    more = two["trainings"][0]["state_gib"] - one["trainings"][0]["state_gib"]
    assert more * 2**30 == pytest.approx(4 * one["parameters"])
    assert two["gpu_hours"]["h100"] < one["gpu_hours"]["h100"]


def test_processes_and_micro_batches_share_the_batch():
    one, two, four = (plan_of(digits_config(p, training={"accumulation": a})) for p, a in ((1, 1), (2, 1), (2, 2)))
    trainings = [p["trainings"][0] for p in (one, two, four)]
    at_once = [(t["batch_gib"] - t["state_gib"]) / (t["activation_mib"] / 1024) for t in trainings]
    assert at_once == pytest.approx([256, 128, 64], rel=1e-6)
    assert one["train_pflop"] == two["train_pflop"] == four["train_pflop"]


# Solves


LARGE = {stage: {"n": 20_000, "batch": 16_000} for stage in ("sample", "sweep", "learning_curve", "few_step", "trajectory")}


@pytest.mark.parametrize("evaluation", [*({s: v} for s, v in LARGE.items()), {"sample": {"shared_batch": 16_000}}])
def test_the_peak_is_that_of_the_largest_batch_of_any_solve(evaluation):
    found = plan_of(points_config(evaluation=evaluation))
    # Ten states; time, input with it, and the hidden layer before and after its SiLU.
    weights, numbers = 4 * found["parameters"], 16_000 * 4 * (2 * STAGES_HELD + 1 + 3 + 20)
    assert found["sample_gib"] * 2**30 == pytest.approx(weights + numbers, rel=1e-3)


def test_the_peak_of_a_likelihood_depends_on_its_mode_and_probes():
    """Twenty test images at once, with ten states each, besides the weights. The NLL against K has fewer images at once."""
    peaks = []
    for mode, probes, exact in (("reverse", 1, 0), ("reverse", 2, 0), ("forward", 1, 0), ("reverse", 1, 64)):
        likelihood = {"mode": mode, "probes": probes, "exact_up_to": exact, "n": 20}
        config = digits_config(evaluation={"likelihood": likelihood, "dequantisation": {"n": 2}})
        work = read_workload(config, "digits", Path("nowhere"))
        found = likelihood_bytes(work) - 4 * work.cost.parameters
        peaks.append(found / 20 - 4 * STAGES_HELD * 64)
    cost = work.cost
    assert peaks == [cost.peak_vjp, cost.peak_vjps, cost.peak_jvp, cost.peak_vjps]
    assert cost.peak < cost.peak_jvp < cost.peak_vjp < cost.peak_vjps


def test_sampling_takes_a_network_less_memory_than_training():
    found = plan_of_preset("cifar10")
    sampling, activations = found["sample_gib"] * 1024 / 500, found["trainings"][0]["activation_mib"]
    assert sampling < activations / 4
    # Frozen weights need no inputs of their layers, so a likelihood keeps somewhat less; its products need memory too.
    assert 0.9 < found["likelihood_gib"] * 1024 / 500 / activations < 1.1


def test_solves_hold_the_conditions_of_their_samples():
    """One image more beside the states of the solver, and the wider input of the network."""
    plain, low = (read_workload(digits_config(condition=c), "digits", Path("nowhere")) for c in (None, LOW))
    more = solve_bytes(low) - solve_bytes(plain) - 4 * (low.cost.parameters - plain.cost.parameters)
    batch = plain.evaluation.sample.batch
    assert more == batch * (4 * 64 + low.cost.peak - plain.cost.peak)


# Presets


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10_1gpu", "imagenet32_1gpu", "imagenet64_1gpu", "imagenet128_1gpu"])
def test_presets_for_one_gpu_take_less_than_a_day_and_fit(name):
    found = plan_of_preset(name)
    assert found["gpu_hours"]["h100"] < 23 and found["batch_gib"] < 60 and found["trainings"][0]["processes"] == 1
    assert max(found["sample_gib"], found["likelihood_gib"]) < 75
    assert not any("data's own images" in note or "fit" in note for note in found["notes"])


@pytest.mark.parametrize(("name", "least"), [("cifar10", 2), ("imagenet32", 4), ("imagenet64", 8), ("imagenet128", 8)])
def test_presets_with_the_papers_settings_fit_into_80_gb(name, least):
    found = plan_of_preset(name)
    assert found["batch_gib"] < 70 and found["trainings"][0]["processes"] == least
    assert max(found["sample_gib"], found["likelihood_gib"]) < 75
    assert not any("fit" in note for note in found["notes"])


def test_a_note_says_what_does_not_fit_a_gpu(tmp_path):
    (found,) = run(preset("cifar10"), ["h100", "rtx4090"], tmp_path, 0, 1)["datasets"]
    (note,) = [note for note in found["notes"] if "fit" in note]
    assert "the likelihood" in note and "24 GiB of a rtx4090" in note


def documented():
    """The rows of the table of presets in docs/cluster.md, by preset."""
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) M \| (.*) \|$", (ROOT / "docs" / "cluster.md").read_text(), re.M)
    return {name: [parameters, *rest.split(" | ")] for name, parameters, rest in rows}


EMBEDDED = {"smoke", "reference", "solvers", "superres_digits", "grid3x3", "zoo", "marginal"}


@pytest.mark.parametrize("name", sorted({p.stem for p in (ROOT / "configs").glob("*.yaml")} - EMBEDDED))
def test_the_memory_that_the_documents_state(name):
    found = plan_of_preset(name)
    ((precision, processes, batch, accumulation),) = {
        (t["precision"], t["processes"], t["batch_size"], t["accumulation"]) for t in found["trainings"]
    }
    values = [f"{found[key]:.3g}" for key in ("batch_gib", "sample_gib", "likelihood_gib")]
    expected = [f"{found['parameters'] / 1e6:.4g}", precision, str(processes), str(batch // (processes * accumulation)), *values]
    assert documented()[name] == expected
