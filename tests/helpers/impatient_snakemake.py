"""Snakemake that looks at its jobs on a cluster every second. Usually the pause between two looks grows to three minutes."""

import asyncio

from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor

PAUSE = 1
"""Seconds between two looks."""


async def _sleep(executor: Executor) -> None:
    await asyncio.sleep(PAUSE)


if __name__ == "__main__":
    Executor.sleep = _sleep
    main()
