"""The seal of a checkpoint: the sha256 of its content, written at the end of the file.

``torch.save`` writes a zip archive, and a zip archive may end with a comment. The seal is that comment, so ``torch.load`` and
``unzip`` read a sealed file like any other.
"""

import hashlib
import os
import struct
from pathlib import Path
from typing import Any

MARK = b"sha256:"
"""The first bytes of the comment; the hash in hex follows."""
SEAL_BYTES = 2 + len(MARK) + 64
"""The comment's length (2 bytes), then the comment."""


def seal(path: Path) -> None:
    """Write the sha256 of a file of ``torch.save`` at the file's end, and flush the file to the disk.

    Raises:
        ValueError: the file does not end like a zip archive without a comment.
    """
    with open(path, "r+b") as stream:
        stream.seek(-22, os.SEEK_END)
        if stream.read(4) != b"PK\x05\x06":
            raise ValueError(f"{path} is not a file of torch.save")
        stream.seek(-2, os.SEEK_END)  # the length of the comment, which is 0 so far
        end = _seal(stream, stream.tell())
        stream.write(end)
        stream.flush()
        os.fsync(stream.fileno())


def check_seal(path: Path) -> None:
    """Check a file's content against the sha256 at its end.

    Raises:
        ValueError: the file has no seal, or its content has another hash.
    """
    size = path.stat().st_size
    with open(path, "rb") as stream:
        stream.seek(max(0, size - SEAL_BYTES))
        end = stream.read()
        if len(end) < SEAL_BYTES or end[2 : 2 + len(MARK)] != MARK:
            raise ValueError("it has no checksum at its end: it was cut short")
        if end != _seal(stream, size - SEAL_BYTES):
            raise ValueError("its content does not match its checksum: it is damaged")


def _seal(stream: Any, length: int) -> bytes:
    """The seal of the first ``length`` bytes of ``stream``, which is then at position ``length``."""
    digest, left = hashlib.sha256(), length
    stream.seek(0)
    while left:
        piece = stream.read(min(left, 1 << 20))
        if not piece:
            raise ValueError("the file became shorter while it was read")
        digest.update(piece)
        left -= len(piece)
    comment = MARK + digest.hexdigest().encode()
    return struct.pack("<H", len(comment)) + comment
