"""Writing in pieces: memory, resuming, refusals."""

import errno
import json
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from data_sources import SPEC, prepared
from filelock import Timeout

from fmbench.data import npy
from fmbench.data.prepared import read
from fmbench.data.raw import RawData, Stream
from fmbench.data.statistics import Histogram, Moments
from fmbench.data.writer import write
from fmbench.errors import DataError, LockedError
from fmbench.store.files import sha256
from fmbench.store.locks import FolderLock
from fmbench.system.progress import Console

G = np.random.default_rng(0)


def slow_images(n: int = 300, stop: int | None = None, started: list[int] | None = None, version: str = "1") -> RawData:
    """A stream of numbered images that can start anywhere, and stops before image ``stop``."""

    def pieces(start, workers):
        if started is not None:
            started.append(start)
        for i in range(start, n, 7):
            k = np.arange(i, min(i + 7, n))
            if stop is not None and k[-1] >= stop:
                raise KeyboardInterrupt
            yield np.broadcast_to((k % 256).astype(np.uint8)[:, None, None, None], (len(k), 3, 4, 5)), k % 9

    prefix = lambda k: f"{version}/{k}"  # noqa: E731
    return RawData(Stream(pieces, n, prefix), Stream(pieces, n, prefix), "numbers", levels=256)


def test_a_stream_writes_the_bytes_of_the_array(tmp_path):
    write(slow_images(), tmp_path / "a", SPEC)
    k = np.arange(300)
    images = np.broadcast_to((k % 256).astype(np.uint8)[:, None, None, None], (300, 3, 4, 5))
    write(RawData(images, images, "numbers", levels=256, train_labels=k % 9, test_labels=k % 9), tmp_path / "b", SPEC)
    np.save(tmp_path / "train.npy", np.ascontiguousarray(images))
    for name in ("train.npy", "test.npy", "train_labels.npy", "test_labels.npy", "manifest.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a" / "train.npy").read_bytes() == (tmp_path / "train.npy").read_bytes()


def test_an_interrupted_stream_resumes_with_the_same_bytes(tmp_path):
    write(slow_images(), tmp_path / "whole", SPEC)
    for stop in (100, 200):
        with pytest.raises(KeyboardInterrupt):
            write(slow_images(stop=stop), tmp_path / "cut", SPEC)
        assert [p.name for p in (tmp_path / "cut").iterdir()] == [".partial"]  # nothing that looks like data
    started: list[int] = []
    write(slow_images(started=started), tmp_path / "cut", SPEC)
    assert started == [196, 0]
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "cut" / path.name).read_bytes()
    assert not (tmp_path / "cut" / ".partial").exists()


@pytest.mark.parametrize("stop", [21, 22], ids=["values", "labels"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "full")], ids=["ctrl-c", "full"])
def test_samples_survive_a_kill_inside_a_write(tmp_path, monkeypatch, stop, error):
    """The kill is in the write of the eleventh piece's values or labels. The next preparation keeps the ten pieces before it."""
    append, calls = npy.ArrayFile.append, []

    def stopped(self, rows):
        calls.append(len(rows))
        if len(calls) == stop:
            raise error
        append(self, rows)

    monkeypatch.setattr(npy.ArrayFile, "append", stopped)
    with pytest.raises(type(error)):
        write(slow_images(), tmp_path / "cut", SPEC)
    monkeypatch.setattr(npy.ArrayFile, "append", append)
    started: list[int] = []
    write(slow_images(started=started), tmp_path / "cut", SPEC)
    assert started == [70, 0]
    write(slow_images(), tmp_path / "whole", SPEC)
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "cut" / path.name).read_bytes()


@pytest.mark.parametrize("name", ["train.npy", "train_codes.npy", "train.json"])
def test_a_bit_that_flipped_before_the_resumption_is_noticed(tmp_path, name):
    """Flips at 12 places of each file; the header of an array is of no use to the reader beyond its shape and type."""
    write(slow_images(), tmp_path / "whole", SPEC)
    with pytest.raises(KeyboardInterrupt):
        write(slow_images(stop=100), tmp_path / "cut", SPEC)
    data = (tmp_path / "cut" / ".partial" / name).read_bytes()
    start = 0 if name.endswith("json") else 128
    for at in np.linspace(start, len(data) - 1, 12).astype(int):
        shutil.rmtree(tmp_path / "again", ignore_errors=True)
        shutil.copytree(tmp_path / "cut", tmp_path / "again")
        damaged = bytearray(data)
        damaged[at] ^= 1 << (at % 7)
        (tmp_path / "again" / ".partial" / name).write_bytes(damaged)
        started: list[int] = []
        log = tmp_path / f"log{at}"
        write(slow_images(started=started), tmp_path / "again", SPEC, console=Console("prepare", "none", log))
        if started != [98, 0]:  # a space in the note may become another space
            assert started == [0, 0] and "train: the samples on the disk cannot be used, because" in log.read_text()
        else:
            assert name == "train.json" and json.loads(damaged) == json.loads(data)
        for path in (tmp_path / "whole").iterdir():
            assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_another_process_never_begins_in_a_folder_that_is_about_to_go(tmp_path, monkeypatch):
    """At every step of the end of a preparation, a second one is either refused or works undisturbed in a folder of its own."""
    begun = []

    def tried(function):
        def call(path, *arguments, **options):
            if ".partial" in str(path) and not begun:
                try:
                    lock = FolderLock(tmp_path / ".partial")
                    lock.acquire()
                except Timeout:
                    pass
                else:
                    begun.append(lock)
                    (tmp_path / ".partial" / "train.npy").write_bytes(b"of the second")
            return function(path, *arguments, **options)

        return call

    for name in ("unlink", "rmdir"):
        monkeypatch.setattr(Path, name, tried(getattr(Path, name)))
    monkeypatch.setattr(shutil, "rmtree", tried(shutil.rmtree))
    write(slow_images(), tmp_path, SPEC)
    assert begun and (tmp_path / ".partial" / "train.npy").read_bytes() == b"of the second"
    begun[0].remove()
    assert not (tmp_path / ".partial").exists()


@pytest.mark.parametrize("change", ["version", "spec", "code", "cut", "labels"])
def test_other_settings_do_not_resume_an_interrupted_preparation(tmp_path, change):
    with pytest.raises(KeyboardInterrupt):
        write(slow_images(stop=100), tmp_path, SPEC)
    if change == "cut":
        path = tmp_path / ".partial" / "train.npy"
        path.write_bytes(path.read_bytes()[:-1])
    if change == "labels":
        (tmp_path / ".partial" / "train_codes.npy").unlink()
    started: list[int] = []
    spec = SPEC | {"parameters": {"a": 1}} if change == "spec" else SPEC
    raw = slow_images(started=started, version="2" if change == "version" else "1")
    write(raw, tmp_path, spec, "other" if change == "code" else "")
    assert started == [0, 0]
    assert np.array_equal(read(tmp_path).labels("train"), np.arange(300) % 9)


def test_a_failed_preparation_keeps_the_data_set_before(tmp_path):
    before = prepared("digits", tmp_path).manifest
    bad = RawData(np.zeros((900, 2), np.float32), np.full((900, 2), np.nan, np.float32), "bad")
    with pytest.raises(DataError, match="not finite"):
        write(bad, tmp_path, SPEC)
    assert read(tmp_path).manifest == before
    assert sha256(tmp_path / "train.npy") == before["splits"]["train"]["sha256"]
    assert not (tmp_path / ".partial").exists()


def test_labels_of_an_earlier_preparation_are_removed(tmp_path):
    prepared("digits", tmp_path)
    write(RawData(np.ones((5, 2), np.float32), np.ones((5, 2), np.float32), "points"), tmp_path, SPEC)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["manifest.json", "test.npy", "train.npy"]


def test_only_one_process_prepares_a_folder(tmp_path):
    def pieces(start, workers):
        with pytest.raises(LockedError, match="another process is preparing"):
            write(slow_images(), tmp_path, SPEC)
        yield np.zeros((3, 2), np.float32), None

    write(RawData(Stream(pieces, 3), Stream(pieces, 3), "points"), tmp_path, SPEC)


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        (Stream(lambda s, w: [(np.zeros((3, 2), np.float32), None)], 4), "promised 4 samples and gave 3"),
        (Stream(lambda s, w: []), "at least two samples"),
        (
            Stream(lambda s, w: [(np.zeros((3, k), np.float32), None) for k in (2, 3)]),
            r"samples of shape \(3,\) after 3 of \(2,\)",
        ),
        (
            Stream(lambda s, w: [(np.zeros((3, 2), np.float32), y) for y in (None, np.zeros(3, int))]),
            "for all samples or for none",
        ),
        (Stream(lambda s, w: [(np.zeros((3, 2), np.float32), np.zeros(2, int))]), "expected 3 labels, .* shape \\(2,\\)"),
        (Stream(lambda s, w: [(np.zeros((3, 2), np.float32), None)], 10**15), "need 8000000.0 GB, and the disk has only"),
    ],
)
def test_streams_that_break_their_promises_are_refused(tmp_path, stream, said):
    with pytest.raises(DataError, match=said):
        write(RawData(stream, np.zeros((3, 2), np.float32), "points"), tmp_path, SPEC)
    assert not list(tmp_path.iterdir())


def test_statistics_do_not_depend_on_the_pieces():
    images = G.integers(0, 256, (50, 3, 6, 5), np.uint8)
    far = (1e4 + G.standard_normal((5000, 3))).astype(np.float32)
    for kind, values in ((Histogram, images), (Moments, far)):
        whole_, parts = kind(), kind()
        whole_.add(values)
        for part in np.array_split(values, 7):
            parts.add(part)
        a, b = whole_.summary(), parts.summary()
        assert a.keys() == b.keys() and all(a[k] == pytest.approx(b[k], rel=1e-12) for k in a)
        assert (a["mean"], a["std"]) == (pytest.approx(values.mean(dtype=float)), pytest.approx(values.std(dtype=float)))


RUN = """
    import sys, numpy as np
    from pathlib import Path
    from fmbench.data.raw import RawData, Stream
    from fmbench.data import writer
    def peak():
        return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) // 1024
    n, delay, out = int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])
    def pieces(start, workers):
        import time
        for i in range(start, n, 256):
            k = np.arange(i, min(i + 256, n))
            time.sleep(delay)
            yield np.broadcast_to((k % 251).astype(np.uint8)[:, None, None, None], (len(k), 3, 64, 64)), k % 10
    writer.SAVE_EVERY = 0.05
    before = peak()
    stream = Stream(pieces, n, str) if delay else Stream(pieces)
    raw = RawData(stream, Stream(lambda s, w: [next(pieces(s, 1))][s:], None, str), "numbers", levels=256)
    manifest = writer.write(raw, out, {"dataset": "big", "source": "x"})
    print(peak() - before, manifest["splits"]["train"]["n"])
"""


def script(tmp_path: Path) -> Path:
    (tmp_path / "run.py").write_text(textwrap.dedent(RUN))
    return tmp_path / "run.py"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_does_not_grow_with_the_data(tmp_path):
    """600 MB of images, in a stream that does not say how many, take less than 100 MB besides the imports."""
    arguments = [sys.executable, str(script(tmp_path)), "50000", "0", str(tmp_path / "big")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    extra, n = map(int, done.stdout.split())
    assert n == 50_000 and (tmp_path / "big" / "train.npy").stat().st_size > 600e6
    assert extra < 100


def test_a_killed_preparation_leaves_no_manifest_and_is_resumed(tmp_path):
    out = tmp_path / "cut"
    process = subprocess.Popen([sys.executable, str(script(tmp_path)), "9000", "0.1", str(out)])
    note = out / ".partial" / "train.json"
    deadline = time.monotonic() + 60
    while not note.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert note.exists() and [p.name for p in out.iterdir()] == [".partial"]
    there = json.loads(note.read_text())["n"]
    assert 0 < there < 9000
    for folder in (out, tmp_path / "whole"):
        subprocess.run([sys.executable, str(script(tmp_path)), "9000", "0.001", str(folder)], check=True, capture_output=True)
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in (tmp_path / "whole").iterdir())
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (out / path.name).read_bytes()
