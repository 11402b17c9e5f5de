"""The hash of settings, which does not depend on the order of their keys."""

import hashlib
import json
from typing import Any


def canonical(values: Any) -> str:
    """JSON with sorted keys and no spaces, so that equal settings give equal text."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def settings_hash(values: Any) -> str:
    """The first 16 hex digits of the sha256 of :func:`canonical`."""
    return hashlib.sha256(canonical(values).encode()).hexdigest()[:16]
