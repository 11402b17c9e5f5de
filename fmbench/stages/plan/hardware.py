"""How long a GPU takes: its data sheet, and the share of it that the estimate counts with.

Hours are operations over a rate, or bytes over the memory's bandwidth where that takes longer. In training the peak rate is that
of the training's precision. Evaluations run in full float32, because a solver's tolerance is finer than TF32's rounding.
"""

from dataclasses import dataclass

UTILISATION = 0.35
"""Share of the peak rate with tensor cores, which wait for memory."""
UTILISATION_FLOAT32 = 0.6
"""Share of the peak rate without tensor cores."""
TRAFFIC_AUTOCAST, TRAFFIC_COMPILED = 31.1, 12.2
"""How often 16-bit training moves, through a GPU's memory, the bytes that autograd keeps in float32: without and with
torch.compile. This traffic bounds it. Measured with the CIFAR-10 network on an H100 (benchmarks/README.md)."""
LEAST_STEP = 0.01
"""Seconds that a GPU takes for a training step however small the network is: it has about a thousand kernels to launch."""


@dataclass(frozen=True)
class Gpu:
    """A GPU's data sheet, with dense peak rates in TFLOP/s."""

    memory: float  # GiB
    bandwidth: float  # of the memory, TB/s
    bfloat16: float
    tf32: float
    float32: float  # without tensor cores

    def peak(self, precision: str) -> float:
        """The rate of a training's products in TFLOP/s."""
        return {"fp32": self.float32, "tf32": self.tf32}.get(precision, self.bfloat16)


GPUS = {
    "h100": Gpu(80, 3.35, 989, 495, 67),
    "h200": Gpu(141, 4.8, 989, 495, 67),
    "a100": Gpu(80, 2.04, 312, 156, 19.5),
    "l40s": Gpu(48, 0.864, 362, 183, 91.6),
    "rtx4090": Gpu(24, 1.01, 165, 83, 82.6),
}


def training_hours(gpu: Gpu, precision: str, processes: int, *, flop: float, traffic: float, steps: int) -> float:
    """Hours of trainings one after another: bound by the products, by the memory, or by the launch of kernels.

    Args:
        processes: GPUs that share the work.
        flop: operations, forward and backward.
        traffic: bytes moved through the memory; 0 where that does not bound the training.
        steps: optimiser steps times micro-batches.
    """
    share = UTILISATION_FLOAT32 if precision == "fp32" else UTILISATION
    computed = flop / (share * gpu.peak(precision) * 1e12 * processes)
    moved = traffic / (gpu.bandwidth * 1e12 * processes)
    return max(computed, moved, steps * LEAST_STEP) / 3600


def evaluation_hours(gpu: Gpu, flop: float) -> float:
    """Hours of evaluations in float32 on one GPU."""
    return flop / (UTILISATION_FLOAT32 * gpu.float32 * 1e12) / 3600


def traffic_per_byte(precision: str, compiled: bool) -> float:
    """How often training moves each byte that autograd keeps in float32; 0 where the products bound it."""
    if precision not in ("bf16", "fp16"):
        return 0.0
    return TRAFFIC_COMPILED if compiled else TRAFFIC_AUTOCAST
