"""Where on its way a training keeps its weights.

Apart from :mod:`fmbench.config.config`, since these iterations are in no spec: they follow from the settings by this code.
"""


def snapshot_steps(iterations: int, snapshots: int) -> list[int]:
    """The iterations whose averaged weights are kept: k iterations / snapshots, rounded down, for k = 1, 2, ...

    As many as there are iterations, if more are asked for.
    """
    return sorted({k * iterations // snapshots for k in range(1, snapshots + 1)} - {0})
