"""The time and the memory that this process has taken."""

import time


def usage(seconds: float) -> str:
    """What this process has taken since its start, such as ``took 12.3 s, 11.9 s of processor time, at most 512 MiB``.

    Args:
        seconds: by the clock. Processor time is that of all threads of this process. A fork counts from the fork on.
    """
    memory = peak_memory()
    most = "" if memory is None else f", at most {memory:.0f} MiB"
    return f"took {seconds:.1f} s, {time.process_time():.1f} s of processor time{most}"


def peak_memory() -> float | None:
    """The most memory that this process has had at once, in MiB; None if the system does not say."""
    # getrusage would count the memory of the process that started this one.
    try:
        with open("/proc/self/status", encoding="ascii") as stream:
            return next(int(line.split()[1]) for line in stream if line.startswith("VmHWM:")) / 1024
    except (OSError, StopIteration):
        return None
