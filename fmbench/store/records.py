"""Records: every number anyone reads is a row of parquet with this one schema.

A row is one metric of one thing. ``value`` is null unless ``status`` is ``ok``; ``reason`` then says why.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fmbench.errors import DataError
from fmbench.store.documents import MAKE_AGAIN
from fmbench.store.limits import RECORDS
from fmbench.store.parquet import read_table, table, write_table

OK, DIVERGED, SKIPPED = "ok", "diverged", "skipped"
STATUSES = (OK, DIVERGED, SKIPPED)


@dataclass(frozen=True)
class Row:
    """One number and where it comes from.

    Attributes:
        stage: the stage that measured it.
        metric, value, unit: what was measured; the unit is part of the number.
        status, reason: ``ok``; ``diverged`` (the numbers went bad); ``skipped`` (not measured, for example after a divergence).
        n: the number of samples behind the value.
        batch: the number of samples that shared a step size or a pass.
        solver, nfe, rtol, atol: the solve behind the value; ``nfe`` is what the counting field saw.
        step: the training iteration, for a metric measured during training.
        draws: the number K of dequantisation draws behind a likelihood.
        probes: the number of Hutchinson probes averaged for each draw; 0 for an exact divergence.
        features, reference: the extractor and the reference of a distance between distributions.
        config_hash: the hash of all settings that the value depends on.
        code_hash: the hash of the code of its stage.
    """

    dataset: str
    method: str
    seed: int | None
    stage: str
    metric: str
    value: float | None
    unit: str
    status: str = OK
    reason: str = ""
    n: int | None = None
    batch: int | None = None
    solver: str = ""
    nfe: float | None = None
    rtol: float | None = None
    atol: float | None = None
    step: int | None = None
    draws: int | None = None
    probes: int | None = None
    features: str = ""
    reference: str = ""
    config_hash: str = ""
    code_hash: str = ""
    commit: str = ""
    versions: str = ""
    device: str = ""
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status must be one of {', '.join(STATUSES)}, not {self.status!r}")
        if self.status == OK and (self.value is None or not abs(self.value) < float("inf")):
            raise ValueError(f"a row with status ok needs a finite value, not {self.value} ({self.metric})")
        if self.status != OK and (self.value is not None or not self.reason):
            raise ValueError(f"a row with status {self.status} has a reason and no value ({self.metric})")


_TYPES: dict[Any, pa.DataType] = {int | None: pa.int64(), float | None: pa.float64(), str: pa.string()}
SCHEMA = pa.schema([pa.field(f.name, _TYPES[f.type], nullable=f.type is not str) for f in fields(Row)])


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows to a parquet file, atomically."""
    write_table(path, table([asdict(r) for r in rows], SCHEMA))


def read_rows(paths: Sequence[Path]) -> pa.Table:
    """Read record files into one table of :data:`SCHEMA`, in the order of ``paths``.

    Raises:
        DataError: a file is missing or damaged, or has other columns, or a row that no stage writes.
    """
    tables = []
    for path in paths:
        found = read_table(path, SCHEMA, RECORDS)
        if reason := _wrong_row(found):
            raise DataError(f"{path} is not a file of this version of fmbench ({reason}); {MAKE_AGAIN}")
        tables.append(found)
    return pa.concat_tables(tables) if tables else SCHEMA.empty_table()


def _wrong_row(rows: pa.Table) -> str:
    """Why some row cannot be a :class:`Row`, in words; empty if all can."""
    known = pc.is_in(rows["status"], pa.array(STATUSES))
    if not pc.all(known, min_count=0).as_py():
        return f"a row has a status that is none of {', '.join(STATUSES)}"
    ok = pc.equal(rows["status"], OK)
    finite = pc.fill_null(pc.is_finite(rows["value"]), False)
    if pc.any(pc.and_(ok, pc.invert(finite)), min_count=0).as_py():
        return f"a row with status {OK} has no finite value"
    if pc.any(pc.and_(pc.invert(ok), pc.is_valid(rows["value"])), min_count=0).as_py():
        return f"a row with a value does not have status {OK}"
    return ""
