# Values and functions for the files of rules. They hold the checked config, the paths, and what each job depends on.

import re
from os.path import dirname, relpath
from pathlib import Path

from fmbench.config import execution, selections, specs
from fmbench.config.datasets import DECODED, DECODERS
from fmbench.config.hashing import canonical
from fmbench.config.installation import CAPTIONS, REFERENCE
from fmbench.config.names import FIGURES
from fmbench.config.plugins import plugins_in
from fmbench.config.stages import GATHERED, MODEL_STAGES
from fmbench.config.written_out import written_out
from fmbench.store.codehash import stage_hash
from fmbench.workflow.configure import configure
from fmbench.config.outputs import drawn, other_tables
from fmbench.workflow.needs import Needs, read_needs

settings = configure(config, Path(workflow.basedir))
needs = read_needs(settings) or Needs({}, {})


def results(path):
    """Return a path in the results folder."""
    return f"{settings.results_dir}/{path}"


CHECKPOINTS = results("checkpoints")
MLFLOW = results("mlflow")
MODEL = "{dataset}/{method}/{seed}"
GPU = int(settings.device == "cuda")
# Data sets whose images are upsampled, for Table 2.
SUPER_RESOLVED = selections.super_resolved(settings)
DRAWN = drawn(settings)
OTHER_TABLES = other_tables(settings)
# Methods that are trained on samples of another.
TAUGHT = selections.taught(settings)


wildcard_constraints:
    dataset="|".join(map(re.escape, settings.datasets)),
    method="|".join(re.escape(m.name) for m in settings.methods),
    seed="|".join(map(str, settings.seeds)),
    figure="|".join(FIGURES),
    gathered="|".join(GATHERED),


def code(stage, spec):
    """Return the hash of a stage's code. An edit of the code reruns the stage; an edit of a comment does not."""
    return stage_hash(stage, plugins_in(spec))


def dataset_spec(build):
    """Return a params function: the spec of a stage that works on one data set."""
    return lambda w: canonical(build(settings, w.dataset))


def dataset_code(stage, build):
    """Return a params function: the hash of the code of such a stage."""
    return lambda w: code(stage, build(settings, w.dataset))


def train_spec(w):
    """Return the spec of a training."""
    return canonical(specs.train(settings, w.dataset, w.method, int(w.seed)))


def train_code(w):
    """Return the hash of the code of a training. An oracle runs other code than a trained method."""
    spec = specs.train(settings, w.dataset, w.method, int(w.seed))
    return code(execution.code_stage(spec), spec)


def teacher(w, file):
    """Return a file of the model whose samples a model is trained on."""
    of = specs.pairs(settings, w.dataset, w.method, int(w.seed))["teacher"]
    return results(f"models/{w.dataset}/{of}/{w.seed}/{file}")


def pairs(w):
    """Return the pairs that a model is trained on, if it has a teacher."""
    return [results(f"pairs/{w.dataset}/{w.method}/{w.seed}/pairs.safetensors")] if w.method in TAUGHT else []


def processes(w):
    """Return how many processes train a model: `processes` of the config, but always one for an oracle."""
    return execution.processes(specs.train(settings, w.dataset, w.method, int(w.seed)))


def launcher(w):
    """Return the command that starts these processes."""
    return execution.launcher(processes(w))


def model_spec(stage):
    """Return a params function: the spec of a stage that works on one model."""
    return lambda w: canonical(specs.evaluate(stage, settings, w.dataset, w.method, int(w.seed)))


def model_code(stage):
    """Return a params function: the hash of the code of such a stage and of the plug-ins that it runs."""
    return lambda w: code(stage, execution.code_specs(stage, settings, w.dataset, w.method, int(w.seed)))


def asked(stage):
    """Return the resources of a stage: the MiB and the minutes that it asks a cluster for, more at each attempt."""

    def of(count):
        return lambda w, attempt: count(stage, w.get("dataset", ""), w.get("method", ""), attempt)

    return {"mem_mb": of(needs.memory), "runtime": of(needs.minutes)}


def of_models(pattern, stage=None):
    """Return `pattern` filled in for every model, or for those that a stage works on."""
    return [pattern.format(dataset=d, method=m, seed=s) for d, m, s in selections.models(settings, stage)]
