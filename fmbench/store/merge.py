"""Merging result sets: the parts that several machines made of one benchmark become one results folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from fmbench.config.written_out import written_out
from fmbench.errors import DataError
from fmbench.store.agreement import KINDS, Difference, differences
from fmbench.store.benchmark import FILE, describe, parse_config
from fmbench.store.documents import write_document
from fmbench.store.equivalence import equivalence_csv
from fmbench.store.files import atomic_folder, check_new_or_empty, write_text
from fmbench.store.merge_tables import in_order, merge_tables
from fmbench.store.parquet import write_table
from fmbench.store.result_set import ORIGIN, ResultSet, distinct
from fmbench.store.retrained import with_one_classifier

EQUIVALENCE = "theory/equivalence.parquet"
LISTED = 40
"""The largest number of differences that a refusal lists."""


def merge(sets: Sequence[ResultSet], out: Path, allow: Sequence[str] = ()) -> dict[str, Any]:
    """Merge result sets into the new or empty folder ``out`` and return its ``benchmark.json``.

    A row that several sets have is there once. The order of rows is that of a single run of the merged config. A classifier that
    another machine trained again is one extractor (:mod:`fmbench.store.retrained`).

    Args:
        sets: two or more.
        allow: the kinds of differences (:data:`~fmbench.store.agreement.KINDS`) to let pass; ``benchmark.json`` notes each one.

    Raises:
        DataError: the sets do not agree, and nothing is written; the message lists the differences in settings, data, code and
            extractors (:mod:`fmbench.store.agreement`) and in rows (:mod:`fmbench.store.merge_tables`). Also if there are fewer
            than two sets, ``out`` is not empty, or a kind in ``allow`` is unknown.
    """
    unknown = [kind for kind in allow if kind not in KINDS]
    if unknown:
        raise DataError(f"--allow {unknown[0]}: known are {'; '.join(f'{k} ({v})' for k, v in KINDS.items())}")
    if len(sets) < 2:
        raise DataError("merge takes two result sets or more")
    check_new_or_empty(out)
    sets, renamed = with_one_classifier(sets)
    disagreements = [d for i, b in enumerate(sets) for a in sets[:i] for d in differences(a, b)]
    config = merged_config(sets)
    tables, conflicts = _merge_all_tables(sets, config)
    found = list(dict.fromkeys([*disagreements, *conflicts]))
    _refuse(found, allow)
    manifests = {d: m for s in reversed(sets) for d, m in s.manifests.items()}
    records = tables["records.parquet"]
    described = describe(
        config,
        distinct(records.select(ORIGIN)).to_pylist(),
        {d: manifests[d] for d in config["datasets"] if d in manifests},
        merged=[s.description["hash"] for s in sets],
        notes=[*(f"differs: {d.text}" for d in found), *renamed, *_missing_models(config, records)],
    )
    described["rows"] = records.num_rows
    with atomic_folder(out) as folder:
        for name, table in tables.items():
            write_table(folder / name, table)
        for dataset, manifest in manifests.items():
            write_document(folder / "data" / dataset / "manifest.json", manifest)
        if EQUIVALENCE in tables:
            write_text(folder / "equivalence.csv", equivalence_csv(tables[EQUIVALENCE]))
        write_document(folder / FILE, described)
    return described


def merged_config(sets: Sequence[ResultSet]) -> dict[str, Any]:
    """The config of all sets together: data sets and methods in the order of their first appearance, seeds sorted."""
    configs = [s.description["config"] for s in sets]
    methods = {m["name"]: m for c in reversed(configs) for m in reversed(c["methods"])}
    datasets = list(dict.fromkeys(d for c in configs for d in c["datasets"]))
    merged = configs[0] | {
        "methods": [methods[name] for name in dict.fromkeys(m["name"] for c in configs for m in c["methods"])],
        "datasets": datasets,
        "seeds": sorted({s for c in configs for s in c["seeds"]}),
        "settings": {d: next(c["settings"][d] for c in configs if d in c["settings"]) for d in datasets},
    }
    return written_out(parse_config(merged, Path(FILE)))


def _merge_all_tables(sets: Sequence[ResultSet], config: dict[str, Any]) -> tuple[dict[str, pa.Table], list[Difference]]:
    """Every parquet file of the merged set by its name, and the rows on which the sets disagree."""
    tables: dict[str, pa.Table] = {}
    conflicts: list[Difference] = []
    for name in dict.fromkeys(name for s in sets for name in s.tables):
        merged, texts = merge_tables(name, [(s.name, s.tables[name]) for s in sets if name in s.tables])
        conflicts += [Difference("rows", text) for text in texts]
        tables[name] = in_order(name, merged, config)
    return tables, conflicts


def _refuse(found: Sequence[Difference], allow: Sequence[str]) -> None:
    """Raise a DataError that lists the differences that are not allowed, if there are any."""
    refused = [d for d in found if d.kind not in allow]
    if refused:
        shown = [f"  {d.text}" + (f" [--allow {d.kind}]" if d.kind else "") for d in refused[:LISTED]]
        more = [f"  and {len(refused) - LISTED} more"] if len(refused) > LISTED else []
        raise DataError("these result sets do not belong together:\n" + "\n".join([*shown, *more]))


def _missing_models(config: dict[str, Any], records: pa.Table) -> list[str]:
    """A note for each model of the merged config that no set has."""
    present = set(zip(*(records[c].to_pylist() for c in ("dataset", "method", "seed")), strict=True))
    models = [(d, m["name"], s) for d in config["datasets"] for m in config["methods"] for s in config["seeds"]]
    return [f"missing: {d}/{m}/{s}" for d, m, s in models if (d, m, s) not in present]
