"""Stage ``check``: builds every method and every network once, so that what cannot work is said before any training."""

from pathlib import Path
from typing import Any

import torch

from fmbench.config import method_from_values
from fmbench.data.prepared import DataSet, read
from fmbench.errors import ConfigError
from fmbench.files import write_json
from fmbench.objectives import build
from fmbench.progress import Console
from fmbench.stages.common import new_network


def run(spec: dict[str, Any], data: dict[str, Path], out: Path, console: Console) -> None:
    """Try every method on every data set's network with a batch of two.

    Args:
        data: folder of each prepared data set.
        out: a JSON file with the number of parameters of each network.

    Raises:
        ConfigError: one line for each thing that cannot be built or combined.
    """
    problems, parameters = [], {}
    objectives = []
    for values in spec["methods"]:
        try:
            objectives.append((values["name"], build(method_from_values(values))))
        except ValueError as error:
            problems.append(f"  methods.{values['name']}: {error}")
    for name, folder in data.items():
        dataset: DataSet = read(folder)
        try:
            network = new_network({"network": spec["datasets"][name]["network"], "seed": 0}, dataset)
        except ValueError as error:
            problems.append(f"  settings.{name}.network: {error}")
            continue
        parameters[name] = sum(p.numel() for p in network.parameters())
        x = dataset.to_model(torch.from_numpy(dataset.train[:2].copy()), torch.rand(2, *dataset.shape))
        for method, objective in objectives:
            try:
                objective.loss(network, torch.randn_like(x), x, torch.tensor([0.25, 0.75]))
            except (RuntimeError, TypeError) as error:
                problems.append(f"  settings.{name}.network with method {method}: {error}")
    if problems:
        raise ConfigError("the config asks for what cannot work:\n" + "\n".join(problems))
    write_json(out, {"parameters": parameters, "methods": [m for m, _ in objectives]})
    counts = ", ".join(f"{name} {count:,}" for name, count in parameters.items())
    console.say(f"{len(objectives)} methods on {len(data)} data sets can be built; network parameters: {counts} -> {out}")
