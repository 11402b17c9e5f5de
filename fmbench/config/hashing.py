"""The hash of settings: the same for the same values, whatever order they were written in."""

import hashlib
import json
from typing import Any


def canonical(values: Any) -> str:
    """JSON with sorted keys and no spaces: the same text for the same settings, whatever order they were written in."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def settings_hash(values: Any) -> str:
    """The first 16 hex digits of the sha256 of :func:`canonical`."""
    return hashlib.sha256(canonical(values).encode()).hexdigest()[:16]
