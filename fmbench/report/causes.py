"""Why numbers are missing, said once for all seeds that share the reason."""

from collections.abc import Iterable


def each_once(causes: Iterable[tuple[object, str]]) -> list[str]:
    """Return "seed 0 diverged: ..." or "seeds 0, 1 and 3 diverged: ...", once for each text, in the order of the first seeds.

    Args:
        causes: each seed with the text that follows it, such as `` diverged: the loss became nan``.
    """
    seeds: dict[str, list[str]] = {}
    for seed, text in causes:
        seeds.setdefault(text, []).append(str(seed))
    return [f"{_listed(names)}{text}" for text, names in seeds.items()]


def _listed(seeds: list[str]) -> str:
    *others, last = seeds
    return f"seeds {', '.join(others)} and {last}" if others else f"seed {last}"
