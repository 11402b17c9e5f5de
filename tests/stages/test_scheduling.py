"""How often Snakemake looks for jobs to start."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake.cli import get_argument_parser
from snakemake.scheduling.job_scheduler import JobRateLimiter
from snakemake.settings.types import MaxJobsPerTimespan

from fmbench.workflow.scheduling import look_once

MAKEFILE = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")


def of(limit: str | None, local: bool = True) -> SimpleNamespace:
    """What look_once sees of a workflow with this limit of started jobs."""
    limiter = None if limit is None else JobRateLimiter(MaxJobsPerTimespan.parse_choice(limit))
    return SimpleNamespace(local_exec=local, scheduler=SimpleNamespace(job_rate_limiter=limiter))


def test_the_limit_that_nobody_asked_for_is_taken_away():
    usual = get_argument_parser().get_default("max_jobs_per_timespan")
    workflow = of(usual)
    look_once(workflow)
    assert workflow.scheduler.job_rate_limiter is None


@pytest.mark.parametrize(("limit", "local"), [("100/1m", True), ("5/1s", True), ("100/1s", False)])
def test_a_users_limit_and_that_of_a_cluster_remain(limit, local):
    workflow = of(limit, local)
    look_once(workflow)
    assert workflow.scheduler.job_rate_limiter is not None


def test_a_scheduler_without_a_limit_stays_as_it_is():
    workflow = of(None)
    look_once(workflow)
    assert workflow.scheduler.job_rate_limiter is None


def test_make_runs_the_hooks_which_start_the_server_of_the_jobs():
    assert "--no-hooks" not in MAKEFILE
