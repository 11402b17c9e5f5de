"""The parquet files of each split: one whole set of shards, and nothing else.

Two sets in one split are two versions or two configurations of a data set. Their union would be a data set that nobody made,
so more than one set is an error, like a set with a gap.
"""

import collections
import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fmbench.data.tree import walk
from fmbench.errors import DataError, first_few

CUSTOMARY = ("{split}*.parquet", "{split}/*.parquet", "*-{split}.parquet", "*-{split}-*.parquet")
"""Where the hub and its library put a split: in the file's name, or in a folder of its name."""

_COUNTED = re.compile(r"(?P<stem>.*?)(?P<index>\d+)-of-(?P<count>\d+)(?P<tag>[-_.].+)?")
_NUMBERED = re.compile(r"(?P<stem>(?:.*?[-_.])?)(?P<index>\d+)(?P<tag>-[0-9a-f]{8}.*)?")


@dataclass(frozen=True, order=True)
class Series:
    """What the names of one set's files have in common.

    Attributes:
        folder: below the data set's folder, with a / at its end; empty for the folder itself.
        stem: the name before the number.
        count: the number of files, as the names give it, or "".
        numbered: whether the names have numbers.
        tagged: whether a fingerprint follows the number.
    """

    folder: str
    stem: str
    count: str = ""
    numbered: bool = False
    tagged: bool = False

    def pattern(self, index: str = "*") -> str:
        """The pattern of the set's files, or with ``index`` the name of one; relative to the data set's folder."""
        if not self.numbered:
            return f"{self.folder}{self.stem}.parquet"
        return f"{self.folder}{self.stem}{index}{self.count and f'-of-{self.count}'}{'-*' if self.tagged else ''}.parquet"


@dataclass(frozen=True)
class Shards:
    """The files of one split, in their order.

    Attributes:
        files: their paths.
        pattern: what they have in common, for descriptions.
        partial: whether the hub calls them partial.
    """

    files: tuple[Path, ...]
    pattern: str
    partial: bool


def parsed(name: str) -> tuple[Series, int]:
    """The set that a file belongs to by its name, and its number (0 without one)."""
    folder, _, base = name.rpartition("/")
    folder, base = folder and f"{folder}/", re.sub(r"(?i)(\.(snappy|zstd|gzip|gz|lz4|brotli))?\.parquet$", "", base)
    if found := _COUNTED.fullmatch(base):
        return Series(folder, found["stem"].lower(), found["count"], True, bool(found["tag"])), int(found["index"])
    found = _NUMBERED.fullmatch(base)
    # A lone number that is no count from 0, such as a year, is part of a name.
    if found and (not found["stem"] or found["tag"] or found["index"].startswith("0") or int(found["index"]) < 1000):
        return Series(folder, found["stem"].lower(), "", True, bool(found["tag"])), int(found["index"])
    return Series(folder, base), 0


def matches(name: str, pattern: str) -> bool:
    """Whether the last parts of a path are those of a pattern, whatever their case. ``**`` stands for any number of folders."""

    def tail(parts: Sequence[str], wanted: Sequence[str]) -> bool:
        if not wanted:
            return True
        if wanted[-1] == "**":
            return any(tail(parts[:i], wanted[:-1]) for i in range(len(parts) + 1))
        return bool(parts) and fnmatch.fnmatchcase(parts[-1], wanted[-1]) and tail(parts[:-1], wanted[:-1])

    return tail(name.lower().split("/"), [part for part in pattern.lower().split("/") if part not in ("", ".")])


def find(root: Path, patterns: dict[str, str | None]) -> tuple[dict[str, Shards], tuple[str, ...]]:
    """The files of each split, and sentences on the files that were left out.

    Args:
        patterns: for each split the pattern of its files, or None for the customary ones.

    Raises:
        DataError: there is no such folder; or a split has no files, more than one set, a gap, a partial set or files of another
            split.
    """
    if not root.is_dir():
        raise DataError(f"{root}: expected a folder of parquet files, found {'a file' if root.exists() else 'nothing'}")
    names = sorted(name for name, _, kind in walk(root) if kind == "file")
    splits = {split: _split(root, names, split, pattern) for split, pattern in patterns.items()}
    owner: dict[Path, str] = {}
    for split, shards in splits.items():
        for file in shards.files:
            before = owner.setdefault(file.resolve(), split)
            if before != split:
                raise DataError(
                    f"{file} is in both splits, {before} and {split}; give the parameters train and test patterns that differ"
                )
    used = {file.relative_to(root).as_posix() for shards in splits.values() for file in shards.files}
    others = [name for name in names if name.lower().endswith(".parquet") and name not in used]
    notes = [f"left out, as of neither split: {_sets(others)}"] if others else []
    unfinished = [name for name in names if name.endswith(".incomplete")]
    if unfinished:
        notes.append(f"there are unfinished downloads: {first_few(unfinished)}")
    notes += [
        f"{split}: {s.pattern} is a part of the split only, as the hub calls it partial"
        for split, s in splits.items()
        if s.partial
    ]
    return splits, tuple(notes)


def _split(root: Path, names: list[str], split: str, pattern: str | None) -> Shards:
    """The one whole set of a split."""
    wanted = [pattern] if pattern else [form.format(split=split) for form in CUSTOMARY]
    found = [name for name in names if any(matches(name, p) for p in wanted)]
    if not found:
        raise DataError(f"{root}: expected files {' or '.join(wanted)} for {split}, found {_there(names)}")
    sets: dict[Series, dict[int, list[str]]] = collections.defaultdict(lambda: collections.defaultdict(list))
    for name in found:
        series, index = parsed(name)
        sets[series][index].append(name)
    if len(sets) > 1:
        example = max(sets, key=lambda s: (not _wrong(s, sets[s]), len(sets[s]), s)).pattern()
        raise DataError(
            f"{root}: expected one set of files for {split}, found {len(sets)}: {_sets(found)}. Give a narrower path, or the "
            f"pattern of one set as the parameter {split}, such as {example!r}"
        )
    series, files = next(iter(sets.items()))
    wrong = _wrong(series, files)
    if wrong:
        raise DataError(
            f"{root / series.folder}: {wrong}. Found for {split}: {_sets(found)}. Download what is missing, remove what is too "
            f"many, or give the pattern of another set as the parameter {split}"
        )
    partial = any(part.startswith("partial-") for part in f"{series.folder}{series.stem}".lower().split("/"))
    if partial and "partial" not in (pattern or ""):
        raise DataError(
            f"{root}: {series.pattern()} is a part of {split} only, as the hub calls it partial. Download the whole split, or "
            f"take the part with the parameter {split}: {series.pattern()!r}"
        )
    return Shards(tuple(root / files[i][0] for i in sorted(files)), series.pattern(), partial)


def _wrong(series: Series, files: dict[int, list[str]]) -> str:
    """What is wrong with a set; empty if it is whole and each file is there once."""
    twice = [name for found in files.values() if len(found) > 1 for name in found]
    if twice:
        return f"{first_few([Path(name).name for name in twice])} have the same number"
    if not series.numbered:
        return ""
    first = min(files)
    from_one = first == 1 and (int(series.count) in files if series.count else bool(series.stem))
    start = 1 if from_one else 0
    count = int(series.count) if series.count else max(files) - start + 1
    if count > 10**6:
        return f"the names promise {count} files"
    width = max(len(series.count), len(str(max(files)))) if series.count else 4
    missing = [i for i in range(start, start + count) if i not in files]
    if missing:
        shown = [Path(series.pattern(f"{i:0{width}}")).name for i in missing[:8]]
        return f"{', '.join(shown)} missing ({len(missing)} of {count} files)"
    extra = sorted(set(files) - set(range(start, start + count)))
    return f"{first_few([Path(files[i][0]).name for i in extra])}: the number is larger than the count" if extra else ""


def _sets(names: Iterable[str]) -> str:
    """The sets of files among ``names``, each with the number of its files."""
    counts = collections.Counter(parsed(name)[0] for name in names)
    told = {s: f"{n} of {int(s.count)} files" if s.count else f"{n} file{'s' * (n > 1)}" for s, n in counts.items()}
    return first_few([f"{s.pattern()} ({told[s]})" for s in sorted(told)])


def _there(names: Sequence[str]) -> str:
    """What a folder has in place of the wanted files, with what to do about it."""
    parquet = [name for name in names if name.lower().endswith(".parquet")]
    if parquet:
        partial = any(part.startswith("partial-") for name in parquet for part in name.lower().split("/"))
        more = " (a folder partial-... has a part of the split only)" if partial else ""
        return f"{_sets(parquet)}{more}; give the pattern of the split as a parameter"
    if any(name.endswith(".arrow") for name in names):
        return (
            "no parquet file, but arrow files, as the library datasets caches or saves them; write one parquet file for each "
            "split with its to_parquet"
        )
    return f"no parquet file among {len(names)} files" if names else "no parquet file"
