"""Learning-rate schedules, appendix E.2 of Lipman et al. 2023."""

FLOOR = 1e-8


def learning_rate(step: int, iterations: int, peak: float, warmup: int, schedule: str) -> float:
    """The learning rate of iteration ``step`` (from 0).

    It rises linearly from 1e-8 at step 0 to the peak at step ``warmup``. Then ``constant`` stays there, and ``polynomial`` falls
    linearly to 1e-8 at the last iteration.

    Raises:
        ValueError: there is no such schedule.
    """
    if schedule not in ("constant", "polynomial"):
        raise ValueError(f"schedule must be 'constant' or 'polynomial', not {schedule!r}")
    if step < warmup:
        return FLOOR + (peak - FLOOR) * step / warmup
    if schedule == "constant":
        return peak
    return peak + (FLOOR - peak) * (step - warmup) / max(1, iterations - 1 - warmup)
