"""The plan as text."""

from typing import Any


def text(plans: dict[str, Any]) -> str:
    """The plan for reading, from what :func:`~fmbench.stages.plan.estimate.run` returns."""
    assumed = plans["assumed"]
    lines = [line for p in plans["datasets"] for line in _dataset_lines(p, assumed)]
    for name in plans["unknown"]:
        lines.append(f"{name}: the shape of its samples is known once it is prepared: run its preparation first, then plan")
    return "\n".join(lines)


def _dataset_lines(p: dict[str, Any], assumed: dict[str, Any]) -> list[str]:
    lines = [
        f"{p['dataset']} ({' x '.join(map(str, p['shape']))})",
        f"  network      {p['parameters']:,} parameters, {p['forward_gflop']:.4g} GFLOP per forward pass of one sample",
    ]
    for training in p["trainings"]:
        lines += _training_lines(training, alone=len(p["trainings"]) == 1)
    lines += [
        f"  evaluation   {p['evaluate_pflop']:.4g} PFLOP in all, at {assumed['nfe']} NFE per solve; "
        f"{p['features_pflop']:.4g} PFLOP of feature extractors",
        f"  its memory   {p['sample_gib']:.3g} GiB to sample a batch, {p['likelihood_gib']:.3g} GiB in the likelihood",
        f"  disk         {p['disk_gib']:.3g} GiB of data, checkpoints, weights and samples",
    ]
    if p["cpu_hours"] is not None:
        lines.append(
            f"  this machine {p['cpu_hours']:.3g} h on {_counted(assumed['threads'], 'thread')} "
            f"({p['cpu_samples_per_second']:.3g} samples per second in training)"
        )
    lines += [f"  {gpu:<12} {hours:.3g} h" for gpu, hours in p["gpu_hours"].items()]
    if p["gpu_hours"]:
        largest = max(p["trainings"], key=lambda t: t["pflop"])
        lines.append(f"  assumed      {_assumed_rates(largest, assumed)}")
    return [*lines, *(f"  note: {note}" for note in p["notes"])]


def _training_lines(t: dict[str, Any], alone: bool) -> list[str]:
    at_once = t["batch_size"] // (t["processes"] * t["accumulation"])
    methods = "" if alone else f" of {', '.join(t['methods'])}"
    batch = "a batch" if at_once == t["batch_size"] else f"{at_once} samples at once"
    return [
        f"  training     {_counted(t['models'], 'model')}{methods}, each {t['iterations']:,} iterations x {t['batch_size']} = "
        f"{t['samples_seen']:,} samples; {t['pflop']:.4g} PFLOP in all",
        f"  its memory   {t['state_gib']:.3g} GiB of state, {t['activation_mib']:.3g} MiB of activations per sample, "
        f"{t['batch_gib']:.3g} GiB for {batch} in {t['precision']}",
    ]


def _assumed_rates(training: dict[str, Any], assumed: dict[str, Any]) -> str:
    share = assumed["gpu_utilisation_float32" if training["precision"] == "fp32" else "gpu_utilisation"]
    parts = [
        f"{share:.0%} of a GPU's {training['precision']} peak in training",
        f"{assumed['gpu_utilisation_float32']:.0%} of its float32 peak in evaluations",
        f"at least {assumed['gpu_least_step_seconds']:g} s per training step",
    ]
    if training["processes"] > 1:
        parts.insert(0, f"{training['processes']} GPUs in training")
    if training["precision"] in ("bf16", "fp16"):
        parts.append("16-bit training also bound by the memory's bandwidth")
    return "; ".join(parts)


def _counted(n: int, what: str) -> str:
    return f"{n} {what}{'s' if n != 1 else ''}"
