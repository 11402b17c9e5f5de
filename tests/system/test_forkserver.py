"""Jobs in forks of a server: exit codes, streams and signals are those of their commands, and all processes end together."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fork_jobs
import pytest

import fmbench
from fmbench.system.forkserver import VARIABLE
from fmbench.system.quick_exit import run_and_exit

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the server needs Linux")
ALONE = 99
"""Exit code of a command that no server took."""
ROOT = Path(fmbench.__file__).parent.parent


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    paths = [str(ROOT), str(ROOT / "tests" / "helpers")]
    values = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "TMPDIR": "/a"}
    return values | {VARIABLE: str(tmp_path / "jobs")}


@pytest.fixture
def server(tmp_path, environment) -> Iterator[subprocess.Popen[bytes]]:
    process = fork_jobs.start(tmp_path, environment)
    yield process
    process.kill()
    process.wait()


def command(environment: dict[str, str], *arguments: str, **options) -> subprocess.Popen[str]:
    line = [sys.executable, fork_jobs.__file__, *arguments]
    return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def said(environment: dict[str, str], *arguments: str, **options) -> tuple[int, str, str]:
    process = command(environment, *arguments, **options)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def appears(path: Path) -> int:
    """Wait for a file with the number of a process, and return the number."""
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int(path.read_text())


def ends(pid: int) -> bool:
    """Whether a process ends within a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_a_command_ends_with_the_exit_code_and_the_output_of_its_job(server, environment):
    assert said(environment, "exit", "0") == (0, "", "")
    assert said(environment, "exit", "3") == (3, "", "")
    assert said(environment, "kill") == (128 + 9, "", "")
    assert said(environment | {"TMPDIR": "/b"}, "say", "é") == (0, "out é\n", "err /b\n")


def test_jobs_are_children_of_the_server_and_share_what_it_has_prepared(server, environment):
    ids = f"{server.pid} {os.getpgid(0)}"
    assert said(environment, "who") == (0, f"{ids} who\n", "")
    assert said(environment, "who") == (0, f"{ids} who who\n", "")


def test_jobs_run_at_the_same_time(server, environment, tmp_path):
    sleeping = command(environment, "sleep", str(tmp_path / "pid"))
    appears(tmp_path / "pid")
    assert said(environment, "exit", "5")[0] == 5
    sleeping.terminate()
    assert sleeping.wait(timeout=60) == 128 + signal.SIGTERM


@pytest.mark.parametrize("change", [{"OMP_NUM_THREADS": "2"}, {"NEW": "1"}, {VARIABLE: "off"}, {VARIABLE: "nowhere"}])
def test_a_job_with_another_environment_is_not_taken(server, environment, change):
    """Libraries read the number of threads when they are imported, so a fork would have the server's."""
    assert said(environment | change, "exit", "0")[0] == ALONE


def test_a_job_in_another_folder_is_not_taken(server, environment, tmp_path):
    assert said(environment, "exit", "0", cwd=tmp_path)[0] == ALONE


def test_a_job_runs_by_itself_if_the_server_has_ended(server, environment):
    server.kill()
    server.wait()
    assert said(environment, "exit", "0")[0] == ALONE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_job_ends_with_its_command(server, environment, tmp_path, number):
    process = command(environment, "sleep", str(tmp_path / "pid"))
    job = appears(tmp_path / "pid")
    process.send_signal(number)
    assert ends(job)
    process.communicate(timeout=60)
    assert said(environment, "exit", "4")[0] == 4  # the server goes on


def test_a_command_and_its_job_end_with_the_server(server, environment, tmp_path):
    process = command(environment, "sleep", str(tmp_path / "pid"))
    job = appears(tmp_path / "pid")
    server.kill()
    assert ends(job)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGKILL


def test_the_server_and_its_jobs_end_with_the_process_that_started_it(environment, tmp_path):
    starter = command(environment, "starter", str(tmp_path))
    server = appears(tmp_path / "server")
    process = command(environment, "sleep", str(tmp_path / "pid"))
    job = appears(tmp_path / "pid")
    starter.kill()
    assert ends(job) and ends(server)
    process.communicate(timeout=60)
    starter.communicate(timeout=60)


def test_the_server_of_fmbench_has_no_thread_that_a_fork_could_lose():
    """jemalloc, which pyarrow brings, starts a thread in the background and prepares it for forks."""
    code = (
        "import pathlib; from fmbench.cli.server import prepare\n"
        "for name in ('prepare', 'features', 'train', 'sample-quality', 'sweep', 'collect', 'claims', 'figure'):\n"
        "    prepare(['fmbench', name])\n"
        "print(*sorted(p.read_text().strip() for p in pathlib.Path('/proc/self/task').glob('*/comm')))"
    )
    values = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=values, capture_output=True, text=True, check=True)
    assert [name for name in done.stdout.split() if name != "jemalloc_bg_thd"] in (["python"], ["python3"])


@pytest.mark.parametrize(
    ("work", "code", "out", "err"),
    [
        ("print('x', end='')", 0, "xend", ""),
        ("sys.exit(7)", 7, "end", ""),
        ("sys.exit('why')", 1, "end", "why\n"),
        ("[][0]", 1, "end", "IndexError: list index out of range\n"),
        ("threading.Timer(0.2, print, ['late']).start()", 0, "late\nend", ""),
    ],
)
def test_a_quick_exit_is_like_the_end_of_python(work, code, out, err):
    """Whatever registered for the end is run, threads are waited for, and the streams are written out."""
    lines = f"import atexit, sys, threading\natexit.register(print, 'end', end='')\ndef work():\n    {work}\n"
    ours = f"from {run_and_exit.__module__} import run_and_exit\n{lines}run_and_exit(work)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for text in (ours, f"{lines}work()"):
        done = subprocess.run([sys.executable, "-c", text], env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (code, out) and done.stderr.endswith(err)
