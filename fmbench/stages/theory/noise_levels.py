"""The noise levels that each method's loss emphasises."""

from collections.abc import Iterator
from typing import Any

from fmbench.config.method_settings import method_from_values
from fmbench.flow.noise_levels import noise_levels
from fmbench.flow.objectives import build
from fmbench.store.tables import THEORY


def noise_level_rows(methods: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Weight, density and emphasis over log SNR for every trained method with a weight over noise levels.

    Oracles have no loss, regression has no noise, and the loss of jumps is about two levels.
    """
    for values in methods:
        method = method_from_values(values)
        if method.oracle is not None or method.path is None or method.jumps is not None:
            continue
        columns = [column.tolist() for column in noise_levels(build(method), 400)]
        for row in zip(*columns, strict=True):
            yield {"method": method.name, **dict(zip(THEORY["noise_levels"].names[1:], row, strict=True))}
