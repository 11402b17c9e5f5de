"""Stage ``likelihood``: NLL of the test split."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fmbench.config.evaluation_settings import LikelihoodSettings
from fmbench.data.prepared import DataSet, read
from fmbench.flow.fields import CountingField
from fmbench.flow.likelihood import GAVE_UP, bits_per_dimension, log_likelihood
from fmbench.flow.oracle import FiniteOracle
from fmbench.stages.oracles import OracleOfSamples
from fmbench.stages.shared.batching import batches
from fmbench.stages.shared.job import Job
from fmbench.stages.shared.likelihood_solve import SOLVER, dequantised_samples, draw_probes, given, solve
from fmbench.stages.shared.models import Model, model_of
from fmbench.store.records import write_rows
from fmbench.system.rng import generator


def run(job: Job, data: Path, model_folder: Path, out: Path) -> None:
    """Write ``rows.parquet`` into ``out``: NLL, its standard error over test samples, and the NFE of the joint solve.

    The divergence is exact up to a set dimension, and Hutchinson's estimate above. The column ``solver`` says which. Each image
    is dequantised with its own uniforms. Probes and uniforms depend on the index of a test sample, not on its batch.

    An oracle's NLL of the test split is the closed form: a test point may be so far from the points of the oracle that no solver
    follows the field there. On samples of the oracle's own distribution both are measured: ``nll_own`` by the solve, and
    ``nll_own_closed_form``.
    """
    dataset = read(data)
    settings = LikelihoodSettings.model_validate(job.spec["settings"])
    model = model_of(job, model_folder, dataset)
    likelihood = _Likelihood(job, model, dataset, settings)
    if reason := model.unsolvable or model.no_density:
        message = likelihood.skip(reason)
    elif model.oracle is not None:
        likelihood.add_closed_form(model.oracle)
        message = f"{likelihood.add_own_samples(model.oracle)} -> {out / 'rows.parquet'}"
    else:
        message = f"{likelihood.add_trained()} -> {out / 'rows.parquet'}"
    write_rows(out / "rows.parquet", job.rows)
    job.console.say(message)


class _Likelihood:
    """The likelihood of one model on one test split.

    Attributes:
        n: the number of test samples that are used.
        exact: whether the divergence is exact.
        draws: the number of dequantisation draws per test sample; None for points.
    """

    def __init__(self, job: Job, model: Model, dataset: DataSet, settings: LikelihoodSettings) -> None:
        self.job, self.model, self.dataset, self.settings = job, model, dataset, settings
        self.n = len(dataset.test) if settings.n is None else min(settings.n, len(dataset.test))
        self.exact = dataset.dimensions <= settings.exact_up_to
        self.unit = "bits/dim" if dataset.is_images else "nats"
        self.draws = 1 if dataset.is_images else None

    def skip(self, reason: str) -> str:
        """Add a skipped row for every number of a trained model."""
        for metric, unit in (("nll", self.unit), ("nll_stderr", self.unit), ("nfe_likelihood", "evaluations")):
            self.job.skip(metric, unit, reason, **self._columns())
        return f"skipped, {reason}"

    def add_trained(self) -> str:
        """Add the rows of a trained model, by the joint solve, and return a summary."""
        job, settings, n, field = self.job, self.settings, self.n, self.model.field()
        streams = [] if self.exact else [f"probe/{k}" for k in range(settings.probes)]
        values, variances, calls, failed = [], [], 0.0, 0
        progress = job.console.progress(n, "samples")
        for indices in batches(n, settings.batch):
            probes = draw_probes(job, self.dataset, settings.probe, indices, streams)
            before = field.calls
            x = dequantised_samples(job, self.dataset, indices)
            result = solve(self.model, field, indices, x, probes, settings)
            calls += (field.calls - before) * len(indices)
            failed += int(result.failed.sum())
            values.append(self._in_units(result.log_p.cpu()))
            variances.append(result.probe_variance.cpu())
            progress.update(indices.stop)
        progress.close()

        nll = torch.cat(values)
        mean, stderr = nll.mean().item(), nll.std().item() / math.sqrt(n)
        found = {"nll": (mean, self.unit), "nll_stderr": (stderr, self.unit), "nfe_likelihood": (calls / n, "evaluations")}
        if settings.probes > 1 and not self.exact:
            # The spread that the probes alone leave in one sample's NLL: the part of nll_stderr that is not the model's.
            scale = 1.0 if self.dataset.levels is None else self.dataset.dimensions * math.log(2)
            found["nll_probe_std"] = torch.cat(variances).mean().sqrt().item() / scale, self.unit
        reason = f"dopri5 failed on {failed} of {n} test samples ({GAVE_UP})" if failed else ""
        columns = self._columns() | {"nfe": calls / n, "reason": reason}
        for metric, (value, unit) in found.items():
            job.add(metric, None if failed else value, unit, **columns)
        return f"NLL {mean:.4f} {self.unit} over {n} test samples ({self._estimator()})"

    def add_closed_form(self, oracle: OracleOfSamples) -> None:
        """Add the closed-form NLL of the test split under an oracle."""
        n, job = self.n, self.job
        pieces = batches(n, self.settings.batch)
        nll = torch.cat([self._closed_form(oracle.of(i), dequantised_samples(job, self.dataset, i)) for i in pieces])
        columns = {"n": n, "solver": "closed form", "draws": self.draws, "reference": given(self.dataset)}
        job.add("nll", nll.mean().item(), self.unit, **columns)
        job.add("nll_stderr", nll.std().item() / math.sqrt(n), self.unit, **columns)

    def add_own_samples(self, oracle: OracleOfSamples) -> str:
        """Add the NLL of samples of the oracle's own distribution, solved and in closed form, and return a summary."""
        job, settings, n, objective = self.job, self.settings, self.n, self.model.flow()
        path, t_min, t_max = objective.path, objective.t_min, objective.t_max
        x = oracle.draw(path, t_max, n, generator(job.spec["seed"], "oracle/own")).float().to(job.device)
        tolerance: dict[str, Any] = {"rtol": settings.rtol, "atol": settings.atol}
        solved, closed, calls, failed = [], [], 0.0, 0
        for indices in batches(n, settings.batch):
            piece, here = x[indices.start : indices.stop], oracle.of(indices)
            # The field and its divergence are computed together, so an evaluation of the pair counts once.
            pair = CountingField(partial(here.velocity_and_divergence, path), t_min, t_max)
            with torch.no_grad():
                result = log_likelihood(
                    self.model.field().rows(indices), piece, t_min, t_max, base_std=path.base_std, divergence=pair, **tolerance
                )
            solved.append(self._in_units(result.log_p.cpu()))
            closed.append(self._closed_form(here, piece))
            calls += pair.calls * len(indices) / n
            failed += int(result.failed.sum())
        reason = f"dopri5 failed on {failed} of {n} samples of the oracle ({GAVE_UP})" if failed else ""
        columns: dict[str, Any] = {"n": n, "batch": min(settings.batch, n), "reference": given(self.dataset), **tolerance}
        columns |= {"solver": f"{SOLVER}, exact divergence", "probes": 0, "nfe": calls, "reason": reason}
        job.add("nll_own", None if failed else torch.cat(solved).mean().item(), self.unit, **columns)
        job.add("nfe_likelihood", None if failed else calls, "evaluations", **columns)
        job.add(
            "nll_own_closed_form",
            torch.cat(closed).mean().item(),
            self.unit,
            n=n,
            solver="closed form",
            reference=columns["reference"],
        )
        return f"NLL {job.rows[0].value:.4f} {self.unit} over {n} test samples (closed form)"

    def _estimator(self) -> str:
        return "exact divergence" if self.exact else f"hutchinson {self.settings.probe} x{self.settings.probes}"

    def _columns(self) -> dict[str, Any]:
        """The columns of rows about the joint solve of the test split."""
        settings = self.settings
        return {
            "n": self.n,
            "batch": min(settings.batch, self.n),
            "rtol": settings.rtol,
            "atol": settings.atol,
            "solver": f"{SOLVER}, {self._estimator()}",
            "draws": self.draws,
            "probes": 0 if self.exact else settings.probes,
            "reference": given(self.dataset),
        }

    def _in_units(self, log_p: Tensor) -> Tensor:
        """NLL in :attr:`unit` from log p in nats, in model space."""
        if self.dataset.levels is None:
            return -(log_p + self.dataset.log_density_change())
        return bits_per_dimension(log_p, self.dataset.dimensions, self.dataset.levels)

    def _closed_form(self, oracle: FiniteOracle, x: Tensor) -> Tensor:
        """NLL of samples x (b, *) under an oracle at the end of its path."""
        end = torch.tensor(self.model.objective.t_max, dtype=torch.float64)
        return self._in_units(oracle.log_density(self.model.flow().path, end, x).cpu())
