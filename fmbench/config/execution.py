"""How a job is run: whose code it runs, and how many processes."""

from fmbench.config.config import Config
from fmbench.config.evaluation_settings import FixedStepSettings
from fmbench.config.specs import Spec, features, pairs, train
from fmbench.config.stages import read_by


def code_stage(spec: Spec) -> str:
    """The stage whose code a job runs; "train" of an oracle runs that of "oracles", with a marginal target that of its own."""
    if spec["stage"] != "train":
        return spec["stage"]
    if spec["method"]["oracle"] is not None:
        return "oracles"
    return "marginal_training" if "target" in spec["method"] else "train"


def code_specs(stage: str, config: Config, dataset: str, method: str, seed: int) -> list[Spec]:
    """The specs whose plug-ins a stage of one model runs."""
    used = [train(config, dataset, method, seed)]
    if stage == "pairs":
        used = [train(config, dataset, pairs(config, dataset, method, seed)["teacher"], seed)]
    if "features" in read_by(stage):
        used.append(features(config, dataset))
    settings = getattr(config.dataset(dataset).evaluation, stage, None)
    if isinstance(settings, FixedStepSettings):
        used.append({"solvers": settings.model_dump()["solvers"]})
    return used


def processes(spec: Spec) -> int:
    """How many processes run a job together."""
    return int(spec.get("processes", 1))


def launcher(count: int) -> str:
    """The command that starts a module with ``count`` processes on this machine.

    Without the address, torchrun looks up the machine's name, and waits for ever where no server knows it. The ``--`` keeps
    torchrun from taking the module's options.
    """
    return "python -m" if count == 1 else f"torchrun --standalone --local-addr 127.0.0.1 --nproc-per-node {count} -m --"
