"""Locks of folders that their holder may remove."""

import os
import subprocess
import sys
import textwrap

import pytest
from filelock import FileLock, Timeout

from fmbench.store import locks
from fmbench.store.locks import FolderLock, locked


def test_a_lock_keeps_others_out_until_it_is_released(tmp_path):
    with locked(tmp_path / "a"), pytest.raises(Timeout):
        FolderLock(tmp_path / "a").acquire()
    with locked(tmp_path / "a"):
        pass


def test_the_holder_removes_the_folder_and_the_next_makes_it_again(tmp_path):
    with locked(tmp_path / "a") as lock:
        (tmp_path / "a" / "sub").mkdir()
        (tmp_path / "a" / "sub" / "file").write_text("x")
        lock.remove()
        assert not (tmp_path / "a").exists()
        with locked(tmp_path / "a"):
            assert (tmp_path / "a" / "lock").exists()


@pytest.mark.parametrize("made_again", [False, True])
def test_the_lock_of_a_file_that_is_gone_does_not_count(tmp_path, monkeypatch, made_again):
    """Between opening the lock file and locking it, its holder removes the folder; perhaps a third process makes it again."""
    third = FolderLock(tmp_path / "a")

    class Late(FileLock):
        calls = 0

        def acquire(self, *arguments, **options):
            found = super().acquire(*arguments, **options)
            Late.calls += 1
            if Late.calls == 1:  # as if the file had been removed before this lock was taken
                os.unlink(tmp_path / "a" / "lock")
                os.rmdir(tmp_path / "a")
                if made_again:
                    third.acquire()
            return found

    monkeypatch.setattr(locks, "FileLock", Late)
    mine = FolderLock(tmp_path / "a")
    if made_again:
        with pytest.raises(Timeout):
            mine.acquire()
        third.release()
    else:
        mine.acquire()
        with pytest.raises(Timeout):
            third.acquire()
        mine.release()


RACE = """
    import sys
    from pathlib import Path
    from filelock import Timeout
    from fmbench.store.locks import FolderLock
    folder, here = Path(sys.argv[1]), Path(sys.argv[2])
    done = 0
    while done < 150:
        lock = FolderLock(folder)
        try:
            lock.acquire()
        except Timeout:
            continue
        try:
            here.touch(exist_ok=False)  # only one process is here at a time
            (folder / "work").write_text(sys.argv[3])
            assert (folder / "work").read_text() == sys.argv[3]
            here.unlink()
        finally:
            lock.remove()
        done += 1
"""


def test_processes_that_remove_the_folder_are_never_in_it_together(tmp_path):
    """Three processes, 150 turns each, through every race of making, locking and removing the folder."""
    (tmp_path / "race.py").write_text(textwrap.dedent(RACE))
    command = [sys.executable, str(tmp_path / "race.py"), str(tmp_path / "folder"), str(tmp_path / "here")]
    running = [subprocess.Popen([*command, name], stderr=subprocess.PIPE, text=True) for name in "abc"]
    for process in running:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert not (tmp_path / "folder").exists()
