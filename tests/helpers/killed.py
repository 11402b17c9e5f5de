"""Writers that are killed while they write."""

import os
import signal
from pathlib import Path

from fmbench.store.files import atomic, atomic_folder
from fmbench.store.temporary import is_temporary


def killed_writer(target: Path, content: bytes = b"half") -> Path:
    """Let a process die by SIGKILL while it writes a file (a folder, if the name has no suffix); return what it left."""
    before = set(target.parent.iterdir()) if target.parent.exists() else set()
    pid = os.fork()
    if pid == 0:
        try:
            if target.suffix:
                with atomic(target) as temporary:
                    temporary.write_bytes(content)
                    os.kill(os.getpid(), signal.SIGKILL)
            with atomic_folder(target) as folder:
                (folder / "file").write_bytes(content)
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    (left,) = set(target.parent.iterdir()) - before
    assert is_temporary(left)
    return left
