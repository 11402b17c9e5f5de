"""Jobs in children of this process: forks, which have imported everything and can be killed safely."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch._dynamo  # optimisers import this at their first step; imported here once for all children
from user_code import Said

import fmbench.stages.collect
import fmbench.stages.oracles
import fmbench.stages.train  # noqa: F401 - the commands import them when they are called


def in_child(work: Callable[[], Said], report: Path, seconds: float | None = None) -> Said | None:
    """Run a command in a fork and return what it said; None if it was killed, by SIGKILL after so many seconds.

    Args:
        report: a file for what it says, outside of every folder that the command writes to.
    """
    report.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            torch.set_num_threads(1)
            said = work()
            report.write_text(f"{said.code}\n{said.err}", encoding="utf-8", errors="backslashreplace")
            code = 0
        except BaseException as error:
            report.write_text(f"99\nTraceback {type(error).__name__}: {error}", encoding="utf-8", errors="backslashreplace")
        finally:
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)  # even if the child has ended, its id is not free before waitpid
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return None
    code, _, err = report.read_text(encoding="utf-8").partition("\n")
    return Said(int(code), "", err)
