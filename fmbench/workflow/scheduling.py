"""When Snakemake looks for jobs to start: after a job has ended, and not every second besides."""

from typing import Any

USUAL = (100, 1)
"""Snakemake's limit of started jobs if no option gives one: jobs, and the time in seconds that they count for."""


def look_once(workflow: Any) -> None:
    """Take away Snakemake's usual limit of started jobs, before the first job of a run on this machine.

    With a limit, Snakemake (9.27) looks for jobs again after the limit's time, and again after that look, for ever. Each ended
    job begins such a chain. After 300 jobs Snakemake looks 300 times a second, at the sizes of the input files of all ready jobs.
    A limit that the user has set remains.

    Args:
        workflow: Snakemake's object in the Snakefile.
    """
    limiter = getattr(workflow.scheduler, "job_rate_limiter", None)
    if workflow.local_exec and limiter is not None and (limiter.max_jobs, limiter.timespan) == USUAL:
        workflow.scheduler.job_rate_limiter = None
