# The config, checked; paths; and what each job depends on. No rules.

import re
from os.path import relpath
from pathlib import Path

from fmbench.config import specs
from fmbench.store.codehash import stage_hash
from fmbench.config.hashing import canonical
from fmbench.config.names import DECODED, FIGURES, GATHERED
from fmbench.workflow import configure

settings = configure(config, Path(workflow.basedir))


def results(path):
    """A path below the results folder."""
    return f"{settings.results_dir.rstrip('/')}/{path}"


CAPTIONS = relpath(Path(workflow.basedir) / "workflow" / "report")
CHECKPOINTS = results("checkpoints")
MLFLOW = results("mlflow")
MODEL = "{dataset}/{method}/{seed}"
MODELS = [
    (dataset, method.name, seed)
    for dataset in settings.datasets
    for method in settings.methods
    for seed in settings.seeds
]
GPU = int(settings.device == "cuda")
TABLE4 = specs.table4(settings)
DEQUANTISED = [(d, m, s) for d, m, s in MODELS if d in TABLE4["datasets"] and m in TABLE4["methods"]]


wildcard_constraints:
    dataset="|".join(map(re.escape, settings.datasets)),
    method="|".join(re.escape(m.name) for m in settings.methods),
    seed="|".join(map(str, settings.seeds)),
    figure="|".join(FIGURES),
    gathered="|".join(GATHERED),


def code(stage, spec):
    """The hash of the stage's code: an edit to it reruns the stage, a comment does not."""
    return stage_hash(stage, specs.plugins(spec))


def dataset_spec(build):
    """A params function for a stage of one data set."""
    return lambda w: canonical(build(settings, w.dataset))


def dataset_code(stage, build):
    return lambda w: code(stage, build(settings, w.dataset))


def train_spec(w):
    return canonical(specs.train(settings, w.dataset, w.method, int(w.seed)))


def train_code(w):
    spec = specs.train(settings, w.dataset, w.method, int(w.seed))
    return code(specs.code_stage(spec), spec)


def processes(w):
    """How many processes train a model: one, unless the config says more, and always one for an oracle."""
    return specs.processes(specs.train(settings, w.dataset, w.method, int(w.seed)))


def launcher(w):
    return specs.launcher(processes(w))


def model_spec(stage):
    """A params function for a stage of one model."""
    return lambda w: canonical(specs.evaluate(stage, settings, w.dataset, w.method, int(w.seed)))


def model_code(stage):
    """The stage's code, with that of the method's, network's and extractor's plug-ins, which it runs too."""
    return lambda w: code(stage, specs.code_specs(stage, settings, w.dataset, w.method, int(w.seed)))


def of_models(pattern, models=MODELS):
    """``pattern`` filled in for every model."""
    return [pattern.format(dataset=d, method=m, seed=s) for d, m, s in models]
