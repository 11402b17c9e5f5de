"""Results that are computed once: in a rerun with the same key they come from the cache."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fmbench.store.cache import Cache


class CachedResults:
    """Results by key. The ones that are not in the cache yet are computed and stored.

    Args:
        folder: of the cache.
        common: entries of every key: all that every result depends on.
        tell: called with a sentence about each result in the cache that cannot be used.

    Attributes:
        computed: the number of results that were not in the cache.
    """

    def __init__(self, folder: Path, common: dict[str, Any], tell: Callable[[str], None]) -> None:
        self._cache, self._common, self.computed = Cache(folder, tell), common, 0

    def value(self, key: dict[str, Any], compute: Callable[[], Any]) -> Any:
        """The JSON value of ``key``."""
        key = self._common | key
        found = self._cache.get(key)
        if found is None:
            found = compute()
            self._cache.put(key, found)
            self.computed += 1
        return found

    def value_and_array(
        self, key: dict[str, Any], compute: Callable[[], tuple[Any, NDArray]], least: int = 0
    ) -> tuple[Any, NDArray]:
        """The JSON value and the array of ``key``; both are computed again if the array has fewer than ``least`` entries."""
        key = self._common | key
        value, array = self._cache.get(key), self._cache.get_array(key)
        if value is None or array is None or len(array) < least:
            value, array = compute()
            self._cache.put_array(key, array)
            self._cache.put(key, value)
            self.computed += 1
        return value, array
