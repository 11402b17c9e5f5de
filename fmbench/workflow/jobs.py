"""All jobs of a run, from its config alone: what the Snakefile's target ``all`` asks for, without Snakemake."""

from collections.abc import Iterator
from dataclasses import dataclass

from fmbench.config import selections, specs
from fmbench.config.config import Config
from fmbench.config.outputs import drawn, other_tables
from fmbench.config.stages import GATHERED, MODEL_STAGES, Model

OF_THE_RUN = {"table1": "table1.csv", "claims": "claims.csv", "reproduce": "reproduction.csv", "page": "index.html"}
"""Rules of the whole run, and an output of each."""


@dataclass(frozen=True)
class Job:
    """One job of the workflow.

    Attributes:
        rule: the name of its rule.
        of: what it works on: a data set, a model, a figure; empty for a job of the whole run.
        output: one of its files, below the results folder. Snakemake removes the files of a job that did not finish.
        log: its log, below the results folder.
    """

    rule: str
    of: str
    output: str
    log: str


def jobs(config: Config) -> list[Job]:
    """Return all jobs of a run, in the order of the workflow."""
    return [*_of_data(config), *_of_models(config), *_of_the_run(config)]


def _of_data(config: Config) -> Iterator[Job]:
    for dataset in config.datasets:
        yield _job("prepare", dataset, f"data/{dataset}/manifest.json")
        yield _job("features", dataset, f"features/{dataset}/rows.parquet")
    for dataset in selections.super_resolved(config):
        yield _job("baselines", dataset, f"baselines/{dataset}/rows.parquet")


def _of_models(config: Config) -> Iterator[Job]:
    for model in selections.models(config):
        yield _of_model("train", model, "models")
    for stage in MODEL_STAGES:
        for model in selections.models(config, stage):
            yield _of_model(stage, model)


def _of_the_run(config: Config) -> Iterator[Job]:
    yield _job("theory", "", "equivalence.csv")
    for kind in GATHERED:
        yield _job("gather", kind, f"{kind}.parquet")
    yield _job("collect", "", "records.parquet")
    for rule, output in OF_THE_RUN.items():
        yield _job(rule, "", output)
    for table in other_tables(config):
        yield _job(table, "", f"{table}.csv")
    for figure in drawn(config):
        yield Job("figure", figure, f"figures/{figure}.png", f"logs/figures/{figure}.log")
    if config.tracking.enabled:
        yield _job("mlflow_summary", "", "summary.json")


def _job(rule: str, of: str, output: str) -> Job:
    return Job(rule, of, output, f"logs/{rule}/{of}.log" if of else f"logs/{rule}.log")


def _of_model(rule: str, model: Model, folder: str = "") -> Job:
    """A job that works on one model; ``folder`` is where it writes, if that is not called as the rule."""
    return _job(rule, "/".join(map(str, model)), f"{specs.model_folder(folder or rule, *model)}/rows.parquet")
