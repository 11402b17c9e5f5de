"""Opens files in a process of its own with little memory, and says of each what happened and how much memory it took.

``python careful_child.py MEGABYTES FILE ...`` prints a line of JSON for each file: its path, the words of the error or an empty
text, the seconds, and the megabytes by which the largest memory of the process grew.
"""

import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def open_all(paths: list[Path], megabytes: int = 600) -> list[dict[str, object]]:
    """Unpack archives and read parquet files in a child whose memory may grow by ``megabytes``."""
    command = [sys.executable, __file__, str(megabytes), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise AssertionError(f"the child ended with {done.returncode}: {done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def _open(path: Path) -> None:
    from fmbench.store.limits import read_parquet
    from fmbench.store.result_set import read_set
    from fmbench.store.unpack import opened

    if path.suffix == ".parquet":
        read_parquet(path)
        return
    with opened(path) as folder:
        read_set("A", folder)


def _main() -> None:
    import pyarrow.parquet  # noqa: F401 - the memory of imports does not count

    from fmbench.errors import DataError

    def megabytes(what: str) -> int:
        [found] = re.findall(rf"{what}:\s+(\d+)", Path("/proc/self/status").read_text())
        return int(found) >> 10

    resource.setrlimit(resource.RLIMIT_AS, (megabytes("VmSize") + int(sys.argv[1]) << 20,) * 2)
    tempfile.tempdir = tempfile.mkdtemp()
    for path in map(Path, sys.argv[2:]):
        Path("/proc/self/clear_refs").write_text("5")  # the largest memory starts anew
        before, began, said = megabytes("VmRSS"), time.perf_counter(), ""
        try:
            _open(path)
        except (DataError, ValueError) as error:
            said = f"{type(error).__name__}: {error}"
        line = {"path": str(path), "said": said, "seconds": time.perf_counter() - began, "megabytes": megabytes("VmHWM") - before}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    _main()
