"""Finished networks as models of MLflow, with their signature, their run and their metrics, if the config asks for them.

``mlflow.pyfunc.load_model("models:/...")`` gives the velocity field where fmbench is installed.
"""

import json
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fmbench.config.method_settings import method_from_values
from fmbench.config.specs import model_folder
from fmbench.data.prepared import read
from fmbench.flow.fields import velocity_field
from fmbench.flow.objectives import build
from fmbench.stages.shared.initial_network import initial_network
from fmbench.store.documents import read_document
from fmbench.store.files import read_json, sha256, write_json
from fmbench.store.shapes import ModelConfig
from fmbench.store.tracking import Mirror
from fmbench.store.tracking_runs import DataInput, Point
from fmbench.store.weights import load_weights

TAG = "fmbench.weights"
"""The tag of a model with the sha256 of its file of weights."""
FILES = ("config.json", "model.safetensors")
"""The files of a trained model that are copied."""
DATA = "data.json"
"""The file beside them with what the field depends on in the data."""
Owner = tuple[str, str, int]


def add_model(store: Mirror, run: str, results: Path, owner: Owner, points: Sequence[Point], data: DataInput | None) -> None:
    """Copy a trained network to MLflow, unless it is there already.

    Oracles and networks with a condition are left out: they are no functions of t and x alone.

    Args:
        results: the results folder. It may be one without models or data, such as that of an archive.
        owner: data set, method and seed of the model.
        points: its results, which MLflow shows with the model.
        data: the data set that these belong to.
    """
    folder, prepared = results / model_folder("models", *owner), results / "data" / owner[0]
    weights = folder / "model.safetensors"
    if not weights.exists() or not prepared.exists() or data is None or "condition" in json.loads(data.source):
        return
    config = read_document(folder / "config.json", ModelConfig)
    if config["spec"]["method"]["oracle"] is not None:
        return
    experiment, digest = store.client.get_run(run).info.experiment_id, sha256(weights)
    known = store.client.search_logged_models([experiment], f"tags.`{TAG}` = '{digest}'")
    if any(model.source_run_id == run and model.status == "READY" for model in known):
        return
    with tempfile.TemporaryDirectory() as temporary:
        for name in FILES:
            shutil.copy2(folder / name, temporary)
        write_json(Path(temporary) / DATA, {"model_std": read(prepared).model_std})
        _send(store, run, Path(temporary), config, digest, points, data)


def _send(
    store: Mirror,
    run: str,
    folder: Path,
    config: dict[str, Any],
    digest: str,
    points: Sequence[Point],
    data: DataInput,
) -> None:
    from mlflow.entities import LoggedModelOutput, Metric

    spec, experiment = config["spec"], store.client.get_run(run).info.experiment_id
    tags = {TAG: digest, "method": spec["method"]["name"], "seed": str(spec["seed"]), "dataset": spec["dataset"]}
    model = store.client.create_logged_model(experiment, f"{tags['method']}-{tags['seed']}", run, tags)
    with tempfile.TemporaryDirectory() as temporary:
        _save(Path(temporary) / "model", folder, config)
        store.client.log_model_artifacts(model.model_id, str(Path(temporary) / "model"))
    store.client.finalize_logged_model(model.model_id, "READY")
    store.client.log_outputs(run, [LoggedModelOutput(model.model_id, config["step"])])
    linked = [
        Metric(p.name, p.value, p.time, p.step, model.model_id, data.name, data.digest, run)
        for p in points
        if p.step == config["step"]
    ]
    store.client.log_batch(run, linked)


def _save(path: Path, folder: Path, config: dict[str, Any]) -> None:
    """Write a folder in MLflow's format for Python functions."""
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    kind, shape = np.dtype(np.float32), (-1, *config["shape"])
    inputs = Schema([TensorSpec(kind, shape, "x"), TensorSpec(kind, (-1,), "t")])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow asks for an example of the input, which the signature describes
        mlflow.pyfunc.save_model(
            path,
            loader_module=__name__,
            data_path=folder,
            signature=ModelSignature(inputs, Schema([TensorSpec(kind, shape)])),
            pip_requirements=["fmbench"],
        )


class VelocityField:
    """The sampling field of a trained network, in the model's scale: noise at t = 0, data at t = 1.

    Args:
        folder: with the files :data:`FILES` of the model, and :data:`DATA`.
    """

    def __init__(self, folder: Path) -> None:
        config = read_document(folder / "config.json", ModelConfig)
        spec = config["spec"]
        network = initial_network(spec["network"], tuple(config["shape"]), spec["seed"])
        load_weights(folder / "model.safetensors", network)
        objective = build(method_from_values(spec["method"]), read_json(folder / DATA)["model_std"])
        self.field = velocity_field(network.eval(), objective.path, objective.prediction)

    @torch.no_grad()
    def predict(self, model_input: dict[str, NDArray], params: dict[str, Any] | None = None) -> NDArray:
        """Velocities (b, *) at samples ``x`` (b, *) and times ``t`` (b,), float32."""
        x, t = (torch.from_numpy(np.asarray(model_input[name], np.float32)) for name in ("x", "t"))
        return self.field(t, x).numpy()


def _load_pyfunc(path: str) -> VelocityField:
    """Load a model for ``mlflow.pyfunc.load_model``, which looks for this name."""
    return VelocityField(Path(path))
