"""Tests that need a GPU: captured steps, number formats, resident and streamed batches, resuming, whole stages."""

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import together
import torch
import trainings
from launch import launch
from pyarrow.parquet import read_table
from torch import Tensor, nn
from trainings import CPU, Interrupted, Scaled
from user_code import command, tall_images

from fmbench.config import specs
from fmbench.config.hashing import canonical
from fmbench.config.methods import METHODS
from fmbench.config.reading import parse
from fmbench.config.training_settings import TrainingSettings
from fmbench.data.prepared import DataSet, read
from fmbench.data.writer import write
from fmbench.flow.objectives import build
from fmbench.networks.unet import UNet
from fmbench.stages.plan.estimate import plan
from fmbench.system.devices import reproducible
from fmbench.system.rng import named_seed, seed_global
from fmbench.training.batches import Batches
from fmbench.training.precision import matrix_precision
from fmbench.training.run import SILENT, Listener, Outcome
from fmbench.training.schedule import learning_rate
from fmbench.training.step import Step

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")

OLD = torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 0)
needs_ampere = pytest.mark.skipif(OLD, reason="TF32 and bfloat16 need a GPU of compute capability 8.0")

GPU = torch.device("cuda")
SETTINGS = TrainingSettings(
    iterations=12, batch_size=16, learning_rate=2e-3, warmup_iterations=3, checkpoint_every=4, log_every=3, ema_decay=0.9
)


@pytest.fixture(autouse=True)
def deterministic() -> Iterator[None]:
    """Deterministic algorithms, as the command line asks for."""
    reproducible()
    torch._dynamo.reset()  # otherwise torch stops compiling what it has compiled many times
    yield
    reproducible(False)


def network(dataset: DataSet, dropout: float = 0.0) -> nn.Module:
    """The small network. If it is for images no layer returns 0, so that a wrong layer shows."""
    net = trainings.network(dataset, dropout)
    if not dataset.is_images:
        return net
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return net.to(memory_format=torch.channels_last)


def steps(
    dataset: DataSet, n: int, device: torch.device = GPU, dropout: float = 0.0, factor: float = 1.0, **changes: Any
) -> tuple[Step, list[float]]:
    """The first n steps of a training, and their losses."""
    settings = SETTINGS.model_copy(update=changes)
    with matrix_precision(settings.precision, device):
        step = Step(Scaled(build(METHODS["fm_ot"]), factor), network(dataset, dropout), settings, device)
        batches, losses = Batches(dataset, settings, 5, device), []
        if settings.compile:
            step.compile(*batches.example())
        for i in range(n):
            step.set_rate(learning_rate(i, 12, settings.learning_rate, settings.warmup_iterations, settings.schedule))
            seed_global(named_seed(5, f"train/dropout/{i}"), GPU)
            losses.append(float(step(*batches(i))))
        batches.close()
    return step, losses


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([t.detach().flatten().cpu() for t in tensors])


def moved(step: Step, dataset: DataSet) -> Tensor:
    """By how much the weights changed."""
    return flat(step.parameters) - flat(list(network(dataset).parameters()))


def felt(dataset: DataSet) -> Tensor:
    """Which weights the loss depends on: all but the keys' biases, whose gradient is rounding, to Adam a full step."""
    marks = {name: torch.ones(p.shape, dtype=torch.bool) for name, p in network(dataset).named_parameters()}
    biases = [mark for name, mark in marks.items() if name.endswith("qkv.bias")]
    assert len(biases) == 1
    biases[0].chunk(3)[1].fill_(False)
    return flat(list(marks.values()))


def run(
    dataset: DataSet,
    folder: Path,
    listener: Listener = SILENT,
    net: nn.Module | None = None,
    dropout: float = 0.0,
    **changes: Any,
) -> tuple[Outcome, nn.Module]:
    settings = SETTINGS.model_copy(update=changes)
    return trainings.run(dataset, folder, settings, None, net or network(dataset, dropout), listener, device=GPU)


# The captured step

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "clipped": {"clip_norm": 0.2},
    "micro": {"accumulation": 4, "clip_norm": 0.2},
    "averages": {"more_ema_decays": [0.5, 0.99]},
    "flips": {"flips": True},
}


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_a_captured_step_is_the_plain_one(variant, tall):
    """Losses, weights, moments and averages over steps whose learning rate and decay both change."""
    plain, expected = steps(tall, 6, **VARIANTS[variant])
    captured, found = steps(tall, 6, compile=True, **VARIANTS[variant])
    assert captured._recording is not None and captured.uncaptured == "" and plain._recording is None
    assert found == pytest.approx(expected, rel=1e-3)
    way, by_loss = moved(plain, tall), felt(tall)
    assert (moved(captured, tall) - way)[by_loss].norm() < 1e-2 * way.norm()
    for mine, other in zip(captured.averages, plain.averages, strict=True):
        assert mine.updates == other.updates == 6
        assert (flat(mine.averages) - flat(other.averages))[by_loss].norm() < 1e-2 * way.norm()
    states = [[step.optimiser.state[p] for p in step.parameters] for step in (captured, plain)]
    assert {float(state["step"]) for state in states[0]} == {6.0}
    moments, others = (flat([state["exp_avg"] for state in side]) for side in states)
    assert (moments - others).norm() < 1e-2 * others.norm()


def test_a_captured_step_is_the_compiled_one(tall, monkeypatch):
    """Only the graph differs: the kernels are the same, and float32 can hold the rates."""
    rate = {"learning_rate": 2.0**-9, "warmup_iterations": 0, "schedule": "constant"}
    captured, found = steps(tall, 6, compile=True, **rate)
    monkeypatch.setattr("fmbench.training.step._can_capture", lambda device: False)
    compiled, expected = steps(tall, 6, compile=True, **rate)
    assert captured._recording is not None and compiled._recording is None
    assert found == pytest.approx(expected, rel=1e-6)
    way = moved(compiled, tall)
    assert (moved(captured, tall) - way).norm() < 1e-3 * way.norm()


def test_compiled_gradients_are_the_plain_ones(tall):
    """Only the compiler differs, on one batch."""
    found = []
    for compiled in (True, False):
        net = network(tall).to(GPU)
        inputs = Batches(tall, SETTINGS, 5, GPU).example()
        with matrix_precision("fp32", GPU):
            runner = torch.compile(net, dynamic=False) if compiled else net
            build(METHODS["fm_ot"]).loss(runner, *inputs).mean().backward()
        found.append(flat([p.grad for p in net.parameters()]))
    assert (found[0] - found[1]).norm() < 1e-4 * found[1].norm() > 0


class Chance(nn.Module):
    """A network that skips a layer at random, by a number drawn on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.map, self.more = nn.Linear(3, 2), nn.Linear(2, 2)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        out: Tensor = self.map(torch.cat([x, t[:, None]], 1))
        return out + self.more(out) if float(torch.rand(())) < 0.5 else out


def test_a_step_that_draws_on_the_cpu_is_not_captured(board):
    step = Step(build(METHODS["fm_ot"]), Chance(), SETTINGS.model_copy(update={"compile": True}), GPU)
    step.compile(*Batches(board, SETTINGS, 5, GPU).example())
    assert step.uncaptured == "it draws random numbers on the CPU"


def test_points_are_captured_too(board):
    _, expected = steps(board, 6)
    captured, found = steps(board, 6, compile=True)
    assert captured._recording is not None
    assert found == pytest.approx(expected, rel=1e-4)


def test_compiling_moves_nothing(tall):
    before, _ = steps(tall, 0)
    after, _ = steps(tall, 0, compile=True)
    assert torch.equal(flat(before.parameters), flat(after.parameters))
    assert all(float(state["step"]) == 0 and not state["exp_avg"].any() for state in after.optimiser.state.values())


def test_dropout_is_drawn_anew_at_each_replay_and_by_the_seed(tall):
    """The learning rate is 0, so that two losses can differ by the mask only."""
    step, _ = steps(tall, 0, compile=True, dropout=0.5)
    assert step._recording is not None
    batches = Batches(tall, SETTINGS, 5, GPU)
    step.set_rate(0.0)
    losses = []
    for seed in (1, 2, 1):
        seed_global(seed, GPU)
        losses.append(float(step(*batches(0))))
    assert losses[0] == losses[2] != losses[1]


class Waiting(nn.Module):
    """A network whose forward pass reads a number from the GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(3, 2)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        scale = 2.0 if x.sum().item() > 0 else 1.0
        out: Tensor = self.map(torch.cat([x, t[:, None]], 1)) * scale
        return out


def test_a_step_that_waits_for_the_gpu_is_not_captured(board, tmp_path):
    outcome, _ = run(board, tmp_path, net=Waiting(), compile=True)
    assert outcome.step == 12 and outcome.reason == ""
    assert "not captured in a CUDA graph: it waits for the GPU" in outcome.notes[0]
    torch.randn(3, device=GPU)  # the generator still works


def test_the_normalisation_that_is_compiled(tall):
    net = network(tall).to(GPU).requires_grad_(False)
    compiled = torch.compile(net, dynamic=False)
    x, t = torch.randn(5, *tall.shape, device=GPU), torch.linspace(0.1, 0.9, 5, device=GPU)
    with matrix_precision("fp32", GPU):
        mine, plain = compiled(t, x), net(t, x)
    assert (mine - plain).abs().max() < 1e-4 * plain.abs().max()


# Number formats


@pytest.mark.parametrize(
    ("name", "bits"),
    [pytest.param("tf32", 11, marks=needs_ampere), pytest.param("bf16", 8, marks=needs_ampere), ("fp16", 11)],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_lower_precisions_learn_the_same_to_their_rounding(name, bits, compiled, tall):
    """The loss is so small that no gradient of fp16 overflows, which would skip a step."""
    full, expected = steps(tall, 6, factor=1e-3, precision="fp32")
    low, found = steps(tall, 6, factor=1e-3, precision=name, compile=compiled)
    assert low.skipped() == 0
    assert found == pytest.approx(expected, rel=2 * 2.0**-bits)  # weights that never move are 9 % away
    way = moved(full, tall)
    assert (moved(low, tall) - way).norm() < 0.5 * way.norm()
    assert found != expected or name == "tf32"  # TF32 is up to the libraries, by the size of a product
    assert {p.dtype for p in low.parameters} == {torch.float32}
    assert (low._recording is not None) == (compiled and name != "fp16")


@pytest.mark.parametrize(("name", "low", "high"), [("fp32", 0.0, 1e-5), pytest.param("tf32", 1e-5, 5e-3, marks=needs_ampere)])
def test_products_and_convolutions_are_rounded_as_asked(name, low, high):
    """TF32 has 11 bits, and the error of real float32 must be far smaller. cuDNN may choose a convolution without TF32."""
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn(1024, 1024, generator=g).to(GPU) for _ in range(2))
    x, w = torch.randn(8, 64, 16, 16, generator=g).to(GPU), torch.randn(64, 64, 3, 3, generator=g).to(GPU)
    with matrix_precision(name, GPU):
        pairs = [(a @ b, a.double() @ b.double())]
        pairs.append((nn.functional.conv2d(x, w), nn.functional.conv2d(x.double(), w.double())))
    product, convolution = (float((found - exact).norm() / exact.norm()) for found, exact in pairs)
    assert low <= product < high and convolution < high


def test_fp32_is_that_of_the_cpu(tall):
    """On the same given numbers, because each device draws other ones."""
    g = torch.Generator().manual_seed(0)
    given = [torch.randn(16, *tall.shape, generator=g), torch.randn(16, *tall.shape, generator=g), torch.rand(16, generator=g)]
    losses = []
    for device in (CPU, GPU):
        with matrix_precision("fp32", device):
            step = Step(build(METHODS["fm_ot"]), network(tall), SETTINGS, device)
            losses.append([float(step(*(x.to(device) for x in given))) for _ in range(3)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


# Batches


@pytest.mark.parametrize("flips", [False, True])
def test_streamed_batches_are_the_resident_ones(flips, tall):
    settings = SETTINGS.model_copy(update={"flips": flips})
    held = Batches(tall, settings, 5, GPU)
    streamed = Batches(tall, settings.model_copy(update={"resident_mib": 0}), 5, GPU)
    assert held.source.sampler.indices(0).device.type == "cuda" and streamed.source.sampler.indices(0).device.type == "cpu"
    for i in range(8):
        for a, b in zip(held(i), streamed(i), strict=True):
            assert a.device.type == "cuda" and torch.equal(a, b)
    streamed.close()


def test_a_stream_is_read_into_pinned_memory(tall):
    streamed = Batches(tall, SETTINGS.model_copy(update={"resident_mib": 0}), 5, GPU)
    streamed(0)
    _, batch = streamed.source._queue.get()  # type: ignore[union-attr]
    streamed.close()
    assert isinstance(batch, Tensor) and batch.is_pinned()


# The loop


@pytest.mark.parametrize(
    "changes",
    [{}, {"compile": True}, pytest.param({"compile": True, "precision": "bf16", "dropout": 0.3}, marks=needs_ampere)],
)
def test_a_killed_training_goes_on_to_the_same_weights(changes, tall, tmp_path):
    """To the bit on a GPU, too: the algorithms are deterministic, and attention between six pixels is so anyway."""

    def killed(step: int, *_: Any) -> None:
        if step == 6:
            raise Interrupted

    whole, net = run(tall, tmp_path / "whole", **changes)
    with pytest.raises(Interrupted):
        run(tall, tmp_path / "killed", Listener(on_log=killed), **changes)
    torch._dynamo.reset()
    again, other = run(tall, tmp_path / "killed", **changes)
    assert again.resumed_from == 4 and again.curve == whole.curve
    assert torch.equal(flat(list(net.parameters())), flat(list(other.parameters())))


@pytest.mark.parametrize("compiled", [False, True])
def test_a_loss_gone_bad_ends_with_the_last_good_checkpoint(compiled, board, tmp_path):
    outcome, net = run(board, tmp_path, compile=compiled, learning_rate=1e19, warmup_iterations=0, iterations=40)
    assert "the loss became" in outcome.reason and outcome.step < 40 and outcome.step % 4 == 0
    assert torch.isfinite(flat(list(net.parameters()))).all()


@pytest.mark.parametrize("compiled", [False, True])
def test_memory_does_not_grow(compiled, tall):
    settings = SETTINGS.model_copy(update={"compile": compiled})
    step, batches = Step(build(METHODS["fm_ot"]), network(tall), settings, GPU), Batches(tall, settings, 5, GPU)
    if compiled:
        step.compile(*batches.example())
    used = []
    for i in range(60):
        step(*batches(i))
        used.append(torch.cuda.memory_allocated(GPU))
    assert max(used[10:30]) == max(used[40:])  # whole epochs later; the orders of epochs take memory, too


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_train_as_one_does(tmp_path):
    """They exchange gradients by NCCL."""
    write(tall_images(train=24, test=6), tmp_path / "tall", {"dataset": "tall"})
    said = launch("together.py", tmp_path, "resume", "cuda")
    assert said.returncode == 0, said.stderr
    _, curve, _, _ = torch.load(tmp_path / "resumed.pt", map_location="cpu")
    alone, _ = together.run(tmp_path, "one", device=GPU)
    assert [loss for _, loss, _ in curve] == pytest.approx([loss for _, loss, _ in alone.curve], rel=1e-4)


# Stages


def settings_of(device: str) -> Any:
    digits = {
        "data": "digits",
        "network": {"kind": "unet", "channels": 8},
        "training": {"iterations": 30, "batch_size": 32, "precision": "bf16" if device == "cuda" else "fp32", "compile": False},
        "evaluation": {
            "sample": {"n": 64, "batch": 32, "shared_batch": 8},
            "likelihood": {"n": 8, "batch": 8},
            "sweep": {"n": 16, "nfe": [4, 8], "reference_nfe": 16},
            "features": {"epochs": 1, "reference_n": 100, "infinity_sizes": None},
        },
    }
    oracle = {"name": "near", "path": "ot", "oracle": {"points": 200, "bandwidth": 0.1}}
    return parse({"device": device, "datasets": ["digits"], "methods": [oracle, "fm_ot"], "settings": {"digits": digits}})


def stages(folder: Path, device: str, method: str) -> list[dict[str, Any]]:
    """Run every stage of one model. Returns their rows in order."""
    config, model = settings_of(device), ("digits", method, 0)
    rows: list[dict[str, Any]] = []

    def stage(name: str, spec: Any, *folders: str) -> None:
        where = [a if i % 2 == 0 else folder / a for i, a in enumerate(folders)]
        said = command(name, "--spec", canonical(spec), *where)
        assert said.code == 0, said.err
        if name != "prepare":
            rows.extend(read_table(folder / folders[-1] / "rows.parquet").to_pylist())

    stage("prepare", specs.prepare(config, "digits"), "--out", "data")
    stage("train", specs.train(config, *model), "--data", "data", "--checkpoints", "checkpoints", "--out", "model")
    stage("features", specs.features(config, "digits"), "--data", "data", "--out", "features")
    for name in ("sample", "likelihood", "sweep"):
        more = ("--cache", "cache") if name == "sweep" else ()
        stage(name, specs.evaluate(name, config, *model), "--data", "data", "--model", "model", *more, "--out", name)
    quality = ("--data", "data", "--samples", "sample", "--features", "features", "--out", "sample_quality")
    stage("sample_quality", specs.evaluate("sample_quality", config, *model), *quality)
    assert all(row["status"] == "ok" for row in rows), [row for row in rows if row["status"] != "ok"]
    return rows


def test_the_stages_of_an_oracle_measure_what_they_do_on_the_cpu(tmp_path):
    """A closed-form field has no trained weights, and its noise is drawn on the CPU, so all numbers must agree."""
    mine, theirs = (stages(tmp_path / device, device, "near") for device in ("cuda", "cpu"))
    assert [row["metric"] for row in mine] == [row["metric"] for row in theirs] and len(mine) > 10
    compared = {"nfe", "sample_std", "nll", "mse", "data_std"}
    for a, b in zip(mine, theirs, strict=True):
        if a["metric"] in compared:
            assert a["value"] == pytest.approx(b["value"], rel=5e-3), a["metric"]
    assert compared <= {row["metric"] for row in mine}
    assert {row["device"] for row in mine} != {row["device"] for row in theirs}


@needs_ampere
def test_the_stages_of_a_trained_model(tmp_path):
    rows = stages(tmp_path, "cuda", "fm_ot")
    # Only one of the two may have the suffix of a build for GPUs.
    found = json.loads(rows[0]["versions"])["torch"]
    assert found.partition("+")[0] == torch.__version__.partition("+")[0]


# Memory


@pytest.mark.parametrize(
    ("precision", "compiled"),
    [("fp32", False), *(pytest.param("bf16", compiled, marks=needs_ampere) for compiled in (False, True))],
)
def test_the_plan_knows_what_a_training_takes(precision, compiled, tmp_path):
    """The plan counts from shapes, without a GPU. Compare with the peak that torch measures."""
    unet = {"kind": "unet", "channels": 64, "channels_multiple": [1, 2, 2], "resample_blocks": False, "max_frequency": 60.0}
    training = {"iterations": 4, "batch_size": 64, "precision": precision, "compile": compiled}
    data = {"source": "user_code:tall_images", "parameters": {"train": 128, "height": 32, "width": 32}}
    settings = {"data": data, "network": unet, "training": training}
    config = parse({"device": "cuda", "datasets": ["tall"], "methods": ["fm_ot"], "settings": {"tall": settings}})
    write(tall_images(train=128, height=32, width=32), tmp_path / "data" / "tall", {"dataset": "tall"})
    planned = plan(config, "tall", [], tmp_path, 0.0)
    assert planned is not None
    expected = planned.batch_gib
    dataset = read(tmp_path / "data" / "tall")
    net = UNet(dataset.shape, **{k: v for k, v in unet.items() if k != "kind"}).to(memory_format=torch.channels_last)  # type: ignore[arg-type]
    gc.collect()
    torch.cuda.reset_peak_memory_stats(GPU)
    before = torch.cuda.memory_allocated(GPU)
    trained = config.training("tall", "fm_ot")
    step, batches = Step(build(METHODS["fm_ot"]), net, trained, GPU), Batches(dataset, trained, 5, GPU)
    if compiled:
        step.compile(*batches.example())
    for i in range(3):
        step(*batches(i))
    peak = (torch.cuda.max_memory_allocated(GPU) - before) / 2**30
    print(f"peak {peak:.3f} GiB, planned {expected:.3f} GiB")
    assert 0.7 < peak / expected < 1.5
