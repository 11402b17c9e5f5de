"""A training step of ours against torchcfm's network and the step of its examples, on equal sizes, batch, loss and optimiser.

Ours is an iteration of the training loop without its log: indices, batch, dequantisation, noise and times, learning rate,
seed, forward, backward, Adam, average. Theirs: a batch of float32 samples, its matcher, its network, the mean square, Adam as
torch makes it, a scheduler, and an average tensor by tensor. Its batch comes from memory by random indices (``input`` memory:
the step alone), or, on the CPU, from a DataLoader without processes of its own, whose time would count as well (pictures to
tensors, normalised, as in its examples; points from a TensorDataset): a whole iteration. Gradients are not clipped, and
nothing is dropped out, on either side. On the CPU: float32, one thread, and the processor's time, which other jobs do not add to;
the peer is in a process of its own, and ours has the heap that the command line gives it. --compile is ``compile: true`` there.

On a GPU (--device cuda): ours compiled, captured and with deterministic algorithms, as ``compile: true`` has it, against theirs
as it is; and (--only large) the paper's CIFAR-10 network in bf16, compiled and not, with its share of the rate of matrix
products measured there.
"""

import copy
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _peer import CIFAR10, MIDDLE, SMALL, difference, pair, random_data
from _timing import against_apart, arguments, in_turn, machine, show, write
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torch.utils.flop_counter import FlopCounterMode
from torchcfm import ConditionalFlowMatcher
from torchvision import transforms

from fmbench.config.methods import METHODS
from fmbench.config.training_settings import TrainingSettings
from fmbench.data.prepared import DataSet
from fmbench.flow.objectives import build
from fmbench.networks.mlp import MLP
from fmbench.system.devices import reproducible, round_products
from fmbench.system.heap import keep_freed_memory
from fmbench.system.rng import seed_global
from fmbench.training.batches import Batches
from fmbench.training.schedule import learning_rate
from fmbench.training.step import Step

COLUMNS = [
    "work",
    "input",
    "batch",
    "parameters",
    "difference",
    "ours_ms",
    "theirs_ms",
    "ratio",
    "ratio_low",
    "ratio_high",
    "ours_per_s",
]
ITERATIONS = 1_000_000
"""Of the schedule; never reached."""
STEPS = 5
"""A GPU is waited for once in so many."""


def ours_of(network: nn.Module, dataset: DataSet, settings: TrainingSettings, device: torch.device) -> Callable[[], Tensor]:
    """The next iteration of the training loop."""
    step, batches = Step(build(METHODS["fm_ot"]), network, settings, device), Batches(dataset, settings, 0, device)
    if settings.compile:
        # On a GPU as the command line has it: what is captured keeps its algorithms, and theirs is free to choose.
        reproducible(device.type == "cuda")
        step.compile(*batches.example())
        reproducible(False)
        if device.type == "cuda" and step.uncaptured:
            raise RuntimeError(f"the step was not captured: {step.uncaptured}")
    number = 0

    def iterate() -> Tensor:
        nonlocal number
        step.set_rate(learning_rate(number, ITERATIONS, settings.learning_rate, settings.warmup_iterations, settings.schedule))
        seed_global(number, device)
        loss = step(*batches(number))
        number += 1
        return loss

    return iterate


def in_memory(dataset: DataSet, batch: int, device: torch.device) -> Callable[[], Tensor]:
    """Batches of float32 samples by random indices."""
    samples = torch.from_numpy(np.array(dataset.train)).to(device).float()
    samples = samples / 127.5 - 1 if dataset.is_images else samples
    return lambda: samples[torch.randint(len(samples), (batch,), device=device)]


class Pictures(Dataset):
    """Images as torchvision's data sets give them, to tensors in [-1, 1]."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self.images = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).squeeze()
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        image: Tensor = self.transform(Image.fromarray(self.images[index]))
        return image


def from_loader(dataset: DataSet, batch: int, device: torch.device) -> Callable[[], Tensor]:
    """Batches of a DataLoader without workers, over and over."""
    samples = np.array(dataset.train)
    source = Pictures(samples) if dataset.is_images else TensorDataset(torch.from_numpy(samples).float())
    loader = DataLoader(source, batch, shuffle=True, drop_last=True)

    def endless() -> Iterator[Tensor]:
        while True:
            for found in loader:
                yield (found if dataset.is_images else found[0]).to(device)

    batches = endless()
    return lambda: next(batches)


def theirs_of(
    network: nn.Module,
    dataset: DataSet,
    settings: TrainingSettings,
    device: torch.device,
    source: Callable[[DataSet, int, torch.device], Callable[[], Tensor]],
) -> Callable[[], None]:
    """A step as torchcfm's examples have it."""
    network.to(device).train()
    batch = source(dataset, settings.batch_size, device)
    average = copy.deepcopy(network)
    matcher = ConditionalFlowMatcher(sigma=0.0)
    optimiser = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    warmup = settings.warmup_iterations
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(step, warmup) / warmup)

    def iterate() -> None:
        optimiser.zero_grad()
        x1 = batch()
        x0 = torch.randn_like(x1)
        t, x, u = matcher.sample_location_and_conditional_flow(x0, x1)
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
            v = network(t, x)
        loss = torch.mean((v.float() - u) ** 2)
        loss.backward()
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            values = network.state_dict()
            for name, kept in average.state_dict().items():
                kept.copy_(kept * settings.ema_decay + values[name] * (1 - settings.ema_decay))

    return iterate


def several(step: Callable[[], Any], device: torch.device) -> Callable[[], None]:
    def steps_and_wait() -> None:
        for _ in range(STEPS):
            step()
        _finish(device)

    return steps_and_wait


def compare(
    work: str,
    networks: tuple[nn.Module, nn.Module],
    dataset: DataSet,
    settings: TrainingSettings,
    device: torch.device,
    rounds: int,
    source: Callable[[DataSet, int, torch.device], Callable[[], Tensor]] = in_memory,
) -> tuple[dict[str, Any], Callable[[], Tensor]]:
    """Both steps in turn; ours is given back for a profile."""
    ours, theirs = networks[0].to(device), networks[1].to(device)
    apart = difference(ours, theirs, torch.randn(4, *dataset.shape, device=device))
    parameters = sum(p.numel() for p in ours.parameters())

    mine = ours_of(ours, dataset, settings, device)
    if device.type == "cuda":
        timed = in_turn(several(mine, device), several(theirs_of(theirs, dataset, settings, device, source), device), rounds)
        timed |= {key: timed[key] / STEPS for key in ("ours_ms", "theirs_ms")}
    else:
        # Some steps at a time: the first finds the processor's caches full of the other side's numbers.
        timed = against_apart(mine, theirs_of, theirs, dataset, settings, device, source, rounds=rounds, least=0.1)
    kind = "memory" if source is in_memory else "DataLoader"
    row = {"work": work, "input": kind, "batch": settings.batch_size, "parameters": parameters, "difference": apart, **timed}
    print(f"{work}, batch {settings.batch_size}, {kind}: ratio {timed['ratio']:.3g}", file=sys.stderr)  # in case it is cut short
    return row | {"ours_per_s": 1e3 * settings.batch_size / timed["ours_ms"]}, mine


def shares(work: str, step: Callable[[], Tensor], device: torch.device, steps: int = 5) -> list[dict[str, Any]]:
    """Where the time of our step goes: operations of torch by their own time, and Python and the rest."""
    for _ in range(3):
        step()
    cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as found:
        began = time.perf_counter()
        for _ in range(steps):
            step()
        _finish(device)
        wall = 1e6 * (time.perf_counter() - began)
    groups: dict[str, float] = {}
    for event in found.key_averages():
        if (
            cuda and event.device_type != torch.autograd.DeviceType.CUDA
        ):  # what a kernel takes is counted with it, not with its caller
            continue
        spent = event.self_device_time_total if cuda else event.self_cpu_time_total
        name = next(
            (group for group, words in GROUPS.items() if any(word in event.key.lower() for word in words)), "other operations"
        )
        groups[name] = groups.get(name, 0.0) + spent
    groups["between operations (Python)" if not cuda else "idle"] = max(0.0, wall - sum(groups.values()))
    ordered = sorted(groups.items(), key=lambda item: -item[1])
    return [{"work": work, "where": name, "share": spent / wall} for name, spent in ordered if spent > 0.005 * wall]


GROUPS = {
    "optimiser and average": ("adam", "foreach", "lerp", "multi_tensor"),
    "norms and other fused elementary operations": ("triton_",),
    "norms": ("norm",),
    "attention": ("attention", "flash", "fmha", "sdpa"),
    "convolutions": ("conv", "cudnn", "implicit", "wgrad", "dgrad", "fprop", "xmma"),
    "matrix products": ("addmm", "::mm", "matmul", "linear", "gemm", "bmm", "cutlass", "nvjet"),
    "random numbers": ("rand", "normal_", "uniform_", "distribution"),
    "copies": ("copy", "cat", "clone", "contiguous", "memcpy", "memset", "fill_", "zero_"),
    "indices": ("index", "gather", "scatter", "arange"),
}
"""Operations by what their names hold, the first that fits."""


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def matrix_rate(device: torch.device, size: int = 8192) -> float:
    """Operations a second of a product of two square bf16 matrices, the best of several."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(20):
        _finish(device)
        began = time.perf_counter()
        for _ in range(5):
            a @ b
        _finish(device)
        best = min(best, (time.perf_counter() - began) / 5)
    return 2 * size**3 / best


def step_flops(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Operations of a sample's forward and backward pass, counted on tensors without storage."""
    with torch.device("meta"):
        network = copy.deepcopy(network).to("meta")
        counter = FlopCounterMode(display=False)
        with counter:
            network(torch.zeros(1), torch.zeros(1, *shape)).sum().backward()
    return int(counter.get_total_flops())


def large(
    folder: Path, device: torch.device, rounds: int, network: dict[str, Any], batches: tuple[int, ...]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A network in bf16, ours eager and compiled against theirs eager, and the share of the rate of matrix products."""
    shape, rate, rows, profiles = (3, 32, 32), matrix_rate(device), [], []
    dataset = random_data(shape, folder)
    flops = step_flops(pair(shape, network)[0], shape)
    for batch in batches:
        for compiled in (True, False) if batch == batches[0] else (True,):
            settings = TrainingSettings(
                iterations=ITERATIONS,
                batch_size=batch,
                learning_rate=5e-4,
                warmup_iterations=45_000,
                ema_decay=0.9999,
                precision="bf16",
                compile=compiled,
            )
            work = f"CIFAR-10 network, bf16{', compiled' if compiled else ''}"
            row, step = compare(work, pair(shape, network), dataset, settings, device, rounds)
            row |= {"gflop_per_image": flops / 1e9, "matrix_tflops": rate / 1e12}
            rows.append(row | {"share_of_matrix_rate": row["ours_per_s"] * flops / rate})
            profiles += shares(f"{work}, batch {batch}", step, device)
    return rows, profiles


def small(folder: Path, device: torch.device, rounds: int, compiled: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The default benchmark's networks and one at 32 x 32, in float32."""
    rows, profiles = [], []
    for work, shape, network, batch in (
        ("digits' U-Net", (1, 8, 8), SMALL, 64),
        ("MLP of 5 x 192", (2,), None, 256),
        ("U-Net, 32 channels", (3, 32, 32), MIDDLE, 32),
    ):
        settings = TrainingSettings(
            iterations=ITERATIONS, batch_size=batch, learning_rate=1e-3, warmup_iterations=100, ema_decay=0.999, compile=compiled
        )
        dataset = random_data(shape, folder / work)
        # On a GPU one would give a loader processes, as torchcfm's script for CIFAR-10 does: without them it only waits for it.
        for source in (in_memory,) if device.type == "cuda" else (in_memory, from_loader):
            mlp = MLP((2,), width=192, depth=5)
            networks = (mlp, copy.deepcopy(mlp)) if network is None else pair(shape, network)
            row, step = compare(f"{work}{', compiled' if compiled else ''}", networks, dataset, settings, device, rounds, source)
            rows.append(row)
            if source is in_memory:
                profiles += shares(work, step, device)
    return rows, profiles


def main() -> None:
    options = arguments(__doc__, devices=True, parts=("small", "large"), compiles=True)
    device = torch.device(options.device)
    round_products("ieee")
    keep_freed_memory()
    before, tables, profiles = machine(device), {}, []
    if options.only == "large" and device.type != "cuda":
        raise SystemExit("the large network is for a GPU: --device cuda")
    with tempfile.TemporaryDirectory() as folder:
        if options.only != "large":
            tables["train_step"], more = small(Path(folder), device, options.rounds, device.type == "cuda" or options.compile)
            show(tables["train_step"], COLUMNS)
            profiles += more
        if options.only == "large" or (device.type == "cuda" and options.only is None):
            tables["large"], more = large(Path(folder) / "large", device, options.rounds, CIFAR10, (128, 256))
            show(tables["large"], [*COLUMNS, "gflop_per_image", "matrix_tflops", "share_of_matrix_rate"])
            profiles += more
        print()
        show(profiles, ["work", "where", "share"])
    write(options.out, before, tables | {"where": profiles})


if __name__ == "__main__":
    main()
