"""Seals: a file holds the sha256 of itself, so that one flipped bit anywhere in it is noticed.

A seal is :data:`MARK` and 64 hex digits, somewhere in the file where its format has room. The digits are the sha256 of the file
with zeros in their place. A writer puts :data:`UNSEALED` into the file, and :func:`seal` fills in the digits. The same content
gives the same bytes.

==================  ==================================================================
format              place of the seal
==================  ==================================================================
safetensors         an entry of the header's metadata
parquet             the entry ``fmbench.seal`` of the footer's key-value metadata
.npy                after the last number; numpy does not look there
JSON                the key ``seal`` of the outermost object
torch.save (zip)    the comment of the archive
==================  ==================================================================
"""

import hashlib
import io
import os
import re
from pathlib import Path
from typing import IO

MARK = b"fmbench-sha256:"
"""The beginning of a seal; the hash in hex follows."""
DIGITS = 64
_ZEROS = b"0" * DIGITS
UNSEALED = (MARK + _ZEROS).decode()
"""The seal of a file before :func:`seal`."""
_SEAL = re.compile(re.escape(MARK) + rb"([0-9a-f]{64})")
_LENGTH = len(UNSEALED)
_PIECE = 1 << 20
NONE = "it has no checksum: it is damaged, was changed by hand, or comes from an earlier version of fmbench"
"""Why a file without a seal is refused."""
DAMAGED = "its content does not match its checksum: it is damaged or was changed by hand"
"""Why a file with another hash is refused."""


def seal(path: Path) -> str:
    """Fill in the seal of a file that holds :data:`UNSEALED` once, flush the file to the disk, and return the 64 digits.

    Raises:
        ValueError: the file has no unsealed seal, or several.
    """
    with open(path, "r+b") as stream:
        found, digest, place = _read(stream)
        if found != _ZEROS:
            raise ValueError(f"{path} has no place for its checksum")
        stream.seek(place)
        stream.write(digest.encode())
        stream.flush()
        os.fsync(stream.fileno())
    return digest


def append_seal(path: Path) -> str:
    """Seal a file whose readers ignore what follows its content, such as .npy; return the 64 digits."""
    with open(path, "ab") as stream:
        stream.write(UNSEALED.encode())
    return seal(path)


def sealed(content: bytes) -> bytes:
    """The content of a small file that holds :data:`UNSEALED` once, with the digits filled in.

    Raises:
        ValueError: it holds no unsealed seal, or several.
    """
    found, digest, place = _read(io.BytesIO(content))
    if found != _ZEROS:
        raise ValueError("there is no place for a checksum")
    return content[:place] + digest.encode() + content[place + DIGITS :]


def check_seal(source: Path | bytes) -> str:
    """Check a file, or the content of one, against its seal, and return the seal's 64 digits.

    A file of any size is read once, in little memory. Files with the same digits have the same content.

    Raises:
        ValueError: the file has no seal or several, or its content has another hash.
    """
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as stream:
        found, digest, _ = _read(stream)
    if found.decode() != digest:
        raise ValueError(DAMAGED)
    return digest


def _read(stream: IO[bytes]) -> tuple[bytes, str, int]:
    """The digits in a file's seal, the digits that it should have, and the place of the digits.

    Raises:
        ValueError: the file has no seal or several.
    """
    digest, seals, start = hashlib.sha256(), [], 0  # ``start``: the place of the first byte in ``held``
    held = b""  # the end of what was read, which may hold the beginning of a seal
    while piece := stream.read(_PIECE):
        held += piece
        while MARK in held and (match := _SEAL.search(held)) is not None:
            digest.update(held[: match.start(1)] + _ZEROS)
            seals.append((match[1], start + match.start(1)))
            held, start = held[match.end() :], start + match.end()
        keep = max(0, len(held) - _LENGTH + 1)
        digest.update(memoryview(held)[:keep])
        held, start = held[keep:], start + keep
    digest.update(held)
    if len(seals) != 1:
        raise ValueError("it has several checksums: it is damaged or was changed by hand" if seals else NONE)
    (found, place), should = seals[0], digest.hexdigest()
    return found, should, place
