"""Commands as real processes in bad surroundings: closed and full streams, other encodings, no home, no folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from command_line import CONFIG

import fmbench
from fmbench.stages import doctor

ROOT = Path(fmbench.__file__).parent.parent
FMBENCH = f"{sys.executable} -m fmbench"


def shell(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    changed = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(["bash", "-c", command], cwd=folder, env=changed, capture_output=True, timeout=120)


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path


@pytest.mark.parametrize("streams", ["", ">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full", ">/dev/full 2>/dev/full", "2>&1 | true"])
def test_an_error_has_its_exit_code_whatever_becomes_of_its_text(folder, streams):
    done = shell(f"set -o pipefail; {FMBENCH} validate --configfile no.yaml {streams}", folder)
    assert done.returncode == 2 and b"Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("streams", "code"), [("<&- >&- 2>&-", 0), ("2>/dev/full", 0), (">/dev/full", 3), ("2>&-", 0), ("| head -1", 0)]
)
def test_a_command_that_cannot_say_its_result_fails_and_other_streams_do_not_matter(folder, streams, code):
    done = shell(f"set -o pipefail; {FMBENCH} spec gather nfe {streams}", folder)
    assert done.returncode == code and b"Traceback" not in done.stderr
    assert code != 3 or b"No space left on device" in done.stderr


def test_a_closed_stream_does_not_lend_its_number_to_a_file(folder):
    """A library's words would be written into that file."""
    code = (
        "import os, sys; from fmbench.cli.output import open_streams; open_streams();"
        "file = open('file', 'w'); print('said'); os.write(1, b'said'); os.write(2, b'said'); sys.exit(file.fileno() < 3)"
    )
    assert shell(f'{sys.executable} -c "{code}" <&- >&- 2>&-', folder).returncode == 0
    assert (folder / "file").read_text() == ""


@pytest.mark.parametrize(
    "encoding", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_any_text_is_written_in_any_encoding(folder, encoding):
    done = shell(f"{FMBENCH} validate --configfile $'caf\\xe9-\\xc3\\xa9.yaml'", folder, **encoding)
    assert done.returncode == 2 and done.stderr.startswith(rb"fmbench: error: there is no config file caf\xe9")
    done.stderr.decode("ascii")
    assert shell(f"{FMBENCH} --help", folder, COLUMNS="10", TERM="", **encoding).returncode == 0


def test_a_deleted_current_folder_is_an_error_in_words(folder):
    done = shell(f"mkdir gone && cd gone && rmdir ../gone && {FMBENCH} schema", folder)
    assert done.returncode == 2
    assert (
        done.stderr
        == b"fmbench: error: the current folder does not exist any more; change to another folder (cd) and try again\n"
    )


@pytest.mark.parametrize("error", [MemoryError(), MemoryError("Unable to allocate 7 TiB")])
def test_too_little_memory_is_an_error_in_words(error):
    from fmbench.cli.main import _describe

    text, code = _describe(error)
    assert code == 3 and text.startswith("fmbench: error: there is not enough memory") and str(error) in text


def test_the_doctor_works_without_a_home(monkeypatch):
    import pwd

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    for name in ("HOME", "XDG_CACHE_HOME", "TORCH_HOME", "FMBENCH_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    (found,) = doctor.weights()
    assert found.level == "note" and "~/.cache/torch/hub" in found.detail
    from fmbench.config.reading import parse

    image = {"data": {"source": "fashion_mnist", "parameters": {"pad": 32}}, "network": {"kind": "unet", "channels": 8}}
    config = parse({"datasets": ["f"], "methods": ["fm_ot"], "settings": {"f": image}})
    data = next(finding for finding in doctor.check(config) if finding.what == "data f")
    assert data.level == "note" and "there is no folder to keep data in" in data.detail and "FMBENCH_DATA" in data.detail
