"""The iterations at which a training keeps its averaged weights.

This is a separate module because the code hash of a training covers it: the spec holds the settings, and the training finds
these iterations by this code. The hash leaves out the other modules of settings.
"""


def snapshot_steps(iterations: int, snapshots: int) -> list[int]:
    """The iterations whose averaged weights are kept: k iterations / snapshots, rounded down, for k = 1, 2, ...

    With more snapshots than iterations, every iteration.
    """
    return sorted({k * iterations // snapshots for k in range(1, snapshots + 1)} - {0})
