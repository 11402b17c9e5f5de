"""The parent run of a method on a data set: mean and spread over seeds. The runs of the trainings are below it."""

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any, NamedTuple

from fmbench.stages.shared.mlflow_sheets import Sheet, add_sheets
from fmbench.store.flatten import flatten
from fmbench.store.tracking import Mirror
from fmbench.store.tracking_runs import DataInput, Point, method_identity

PARENT = "mlflow.parentRunId"
NOTE = (
    "Means over the seeds {seeds}. Metrics that end in _std are standard deviations over seeds (n - 1). "
    "Values that some seed lacks are means over the others. The images are those of the first seed that did not diverge."
)


class Seed(NamedTuple):
    """The run of one training, and what it shows."""

    run: str
    config: dict[str, Any]
    commit: str
    times: tuple[int | None, int | None]  # when it began and ended, in ms since 1970; None where that is not known
    points: list[Point]
    sheets: list[Sheet]


def mirror_parent(store: Mirror, experiment: str, seeds: Sequence[Seed], data: DataInput | None) -> None:
    """Bring the parent run of all seeds of a method on a data set up to their points.

    It begins with the first training and ends with the last. It has failed if all trainings have.
    """
    first, good = seeds[0].config, [seed for seed in seeds if not seed.config["reason"]]
    starts, ends = ([time for seed in seeds if (time := seed.times[i]) is not None] for i in (0, 1))
    parent = method_identity(first["spec"], first["code_hash"], [seed.commit for seed in seeds], min(starts, default=None))
    run = store.run(experiment, parent)
    end = max(ends, default=None)
    points = over_seeds([seed.points for seed in good], max([*starts, *ends], default=0))
    parameters = {k: v for k, v in flatten(first["spec"]).items() if k != "seed"} | {"parameters": first["parameters"]}
    names = ", ".join(str(seed.config["spec"]["seed"]) for seed in seeds)
    reasons = [f"seed {seed.config['spec']['seed']}: {seed.config['reason']}" for seed in seeds if seed.config["reason"]]
    tags = dict(parent.tags) | {"seeds": names, "fmbench.reason": "; ".join(reasons)}
    tags["mlflow.note.content"] = NOTE.format(seeds=names)
    store.log(run, new_points(store, run, points), parameters, tags)
    if data is not None:
        store.add_data(run, data)
    # So that the samples of two methods can be seen side by side.
    add_sheets(store, run, (good or seeds)[0].sheets, first["step"], max([*starts, *ends], default=0))
    for seed in seeds:
        store.client.set_tag(seed.run, PARENT, run)
    store.end(run, not good, end)


def new_points(store: Mirror, run: str, points: Sequence[Point]) -> list[Point]:
    """The points that a run does not show yet. The duration of a repeated job differs, which is not worth a new point."""
    shown = store.client.get_run(run).data.metrics
    return store.news(run, [p for p in points if p.name not in shown or not p.name.endswith(("_seconds", "_seconds_std"))])


def over_seeds(members: Sequence[Sequence[Point]], time: int) -> list[Point]:
    """Mean and standard deviation (n - 1) of each metric at each step over seeds. With one seed there is no deviation.

    Args:
        members: the points of each seed.
        time: of the points, in ms since 1970.
    """
    values: dict[tuple[str, int], list[float]] = {}
    for points in members:
        for point in points:
            values.setdefault((point.name, point.step), []).append(point.value)
    found = []
    for (name, step), several in values.items():
        found.append(Point(name, fmean(several), step, time))
        if len(several) > 1:
            found.append(Point(f"{name}_std", stdev(several), step, time))
    return found
