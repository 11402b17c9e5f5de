"""Simulate the verdicts on claims, and write their error rates and power into docs/claims.md.

    python tools/calibration.py                 # the tables of the page
    python tools/calibration.py --runs 20       # the same tables from fewer simulations
    python tools/calibration.py --claim 11      # only the rows of one claim; those of the others stay
    python tools/calibration.py --situation run # only the tables of one situation: this one after a new reference run

Every simulation makes the rows that the claims read, with known true effects (tests/helpers/claim_simulation.py), and runs the
claims' own tests on them.
"""

import argparse
import functools
import json
import re
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy import special

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

from claim_simulation import EQUAL, NOISES, ONE_EQUAL, PAPER, SIMULATED, Block, Draws, blocks, like  # noqa: E402

from fmbench.report.claims.evaluation import evaluate_claims  # noqa: E402
from fmbench.report.claims.registry import CLAIMS  # noqa: E402
from fmbench.report.claims.sources import read_sources  # noqa: E402
from fmbench.report.claims.verdicts import ALPHA, FAILS, HOLDS  # noqa: E402
from fmbench.report.layout import markdown_table  # noqa: E402

SEEDS = (2, 3, 6, 8, 12)
RUNS = 200
PAGE = ROOT / "docs" / "claims.md"
REFERENCE = ROOT / "results" / "reference" / "default"
RUN = "run"
"""The situation with the means and spreads of the reference run."""
SITUATIONS = (EQUAL, ONE_EQUAL, PAPER, RUN)
NOT_IN_RUN = (7, 11)
"""Claims that are not simulated after the reference run: one is on single samples, one has no rows there."""
DEAR = {3: 0.5}
"""Claims with fewer simulations, because each takes longer: their share of the number."""
OTHER_NOISE_SEEDS = 6
DISTANCES = ("frechet", "frechet_stderr", "energy_distance", "energy_distance_stderr")
USED = {
    1: ("nll", "nfe", "nfe_stderr", *DISTANCES),
    2: ("mse", "reference_mse"),
    3: DISTANCES,
    4: DISTANCES,
    5: ("nfe",),
    6: ("final_loss", *DISTANCES),
    10: ("nll_averaged", "nll_paper"),
}
"""The metrics that a claim reads."""


@dataclass(frozen=True)
class Cell:
    """One cell of a table: a claim, a situation, a number of seeds, a distribution, and how many simulations."""

    claim: int
    situation: str
    seeds: int
    noise: str
    runs: int

    def count(self) -> Counter[str]:
        """The verdicts on the whole claim."""
        rng = np.random.default_rng([self.claim, self.seeds, len(self.situation), len(self.noise)])
        (claim,) = (c for c in CLAIMS if c.number == self.claim)
        made_of = reference(self.claim) if self.situation == RUN else {}
        found: Counter[str] = Counter()
        for _ in range(self.runs):
            draws = Draws(rng, self.seeds, self.situation, self.noise)
            if self.situation == RUN:
                sources = {name: like(parts, draws) for name, parts in made_of.items()}
            else:
                sources = SIMULATED[self.claim](draws)
            found[evaluate_claims(sources, [claim])[0].verdict] += 1
        return found


@functools.cache
def reference(claim: int) -> dict[str, list[Block]]:
    """What the reference run's sources of a claim are made of."""
    needs = {6: ("records", "learning_curve")}.get(claim) or next(c.needs for c in CLAIMS if c.number == claim)
    sources = read_sources(REFERENCE)
    metrics = USED.get(claim, ())
    found = {name: blocks(name, sources[name]) for name in needs}
    return {name: [part for part in parts if part.metric in metrics] for name, parts in found.items()}


def cells(runs: int) -> list[Cell]:
    """All cells of the page's tables of whole claims."""
    found = []
    for claim in SIMULATED:
        own = max(2, round(runs * DEAR.get(claim, 1.0)))
        few = max(2, own // 5)
        for n in SEEDS:
            found += [Cell(claim, EQUAL, n, "normal", own), Cell(claim, ONE_EQUAL, n, "normal", own)]
            found.append(Cell(claim, PAPER, n, "normal", few))
            found += [Cell(claim, RUN, n, "normal", few)] if claim not in NOT_IN_RUN else []
        found += [Cell(claim, EQUAL, OTHER_NOISE_SEEDS, noise, own // 2) for noise in NOISES if noise != "normal" and claim != 7]
    return found


def coverage_table(runs: int = 200_000) -> list[str]:
    """The coverage of Student's interval by distribution and number of seeds, and its largest one-sided error."""
    rng, rows = np.random.default_rng(0), []
    for name, draw in NOISES.items():
        row = [name]
        for n in SEEDS:
            x = draw(rng, (runs, n))
            t = x.mean(1) / (x.std(1, ddof=1) / np.sqrt(n))
            limit = -special.stdtrit(n - 1, ALPHA)
            low, high = float((t < -limit).mean()), float((t > limit).mean())
            row.append(f"{100 * (1 - low - high):.1f} ({100 * max(low, high):.1f})")
        rows.append(row)
    return markdown_table(["distribution of a seed's value", *(f"{n} seeds" for n in SEEDS)], rows)


def percent(counts: Counter[str], verdict: str) -> str:
    """The share of a verdict in per cent."""
    return f"{100 * counts[verdict] / max(sum(counts.values()), 1):.1f}"


def tables(found: dict[Cell, Counter[str]]) -> list[str]:
    """The tables of whole claims."""

    def by_seeds(situation: str, verdicts: tuple[str, ...]) -> list[str]:
        rows = []
        for claim in SIMULATED:
            own = {c.seeds: k for c, k in found.items() if (c.claim, c.situation, c.noise) == (claim, situation, "normal")}
            if own:
                runs = str(min(sum(k.values()) for k in own.values()))
                rows.append([str(claim), runs, *(" / ".join(percent(own[n], v) for v in verdicts) for n in SEEDS)])
        return markdown_table(["claim", "simulations", *(f"{n} seeds" for n in SEEDS)], rows)

    others = [noise for noise in NOISES if noise != "normal"]
    rows = []
    for claim in SIMULATED:
        own = {c.noise: k for c, k in found.items() if (c.claim, c.situation, c.seeds) == (claim, EQUAL, OTHER_NOISE_SEEDS)}
        if set(others) <= set(own):
            runs = str(min(sum(own[noise].values()) for noise in others))
            rows.append([str(claim), runs, *(f"{percent(own[n], HOLDS)} / {percent(own[n], FAILS)}" for n in others)])
    return [
        "### Wrong verdicts: everything is exactly at its threshold (holds / fails, %)",
        "",
        *by_seeds(EQUAL, (HOLDS, FAILS)),
        "",
        "### Wrong verdicts: one comparison is at its threshold, all others are far on the claimed side (holds / fails, %)",
        "",
        *by_seeds(ONE_EQUAL, (HOLDS, FAILS)),
        "",
        f"### Wrong verdicts with other distributions, {OTHER_NOISE_SEEDS} seeds, everything at its threshold (holds / fails, %)",
        "",
        *markdown_table(["claim", "simulations", *others], rows),
        "",
        "### Power: effects of the paper's size (holds / fails, %)",
        "",
        *by_seeds(PAPER, (HOLDS, FAILS)),
        "",
        "### Power: means and spreads of the reference run (holds / fails, %)",
        "",
        *by_seeds(RUN, (HOLDS, FAILS)),
    ]


def with_others(lines: list[str], before: list[str]) -> list[str]:
    """The tables with the rows of claims that were not simulated, as they were in the page before."""
    known: dict[str, dict[int, str]] = {}
    for tables_of in (before, lines):
        heading = ""
        for line in tables_of:
            heading = line if line.startswith("###") else heading
            if row := re.match(r"\| (\d+) \|", line):
                known.setdefault(heading, {})[int(row[1])] = line
    found, heading = [], ""
    for line in lines:
        heading = line if line.startswith("###") else heading
        if re.match(r"\| \d+ \|", line):
            continue
        found.append(line)
        if line.startswith("|---"):
            found += [known.get(heading, {})[claim] for claim in sorted(known.get(heading, {}))]
    return found


def count_all(asked: list[Cell], kept: Path | None, processes: int) -> dict[Cell, Counter[str]]:
    """The verdicts of every cell. The file ``kept`` gets each cell when it is done, and a stopped run continues from it."""
    lines = kept.read_text().splitlines() if kept and kept.exists() else []
    found = {Cell(**known["cell"]): Counter(known["verdicts"]) for known in map(json.loads, lines)}
    left = [cell for cell in asked if cell not in found]
    with ProcessPoolExecutor(processes) as pool:
        for cell, counts in zip(left, pool.map(Cell.count, left), strict=True):
            found[cell] = counts
            if kept:
                with kept.open("a") as stream:
                    stream.write(json.dumps({"cell": asdict(cell), "verdicts": counts}) + "\n")
    return {cell: found[cell] for cell in asked}


def main() -> None:
    """Simulates, and writes the tables between the page's marks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=RUNS, help=f"simulations of a cell (default {RUNS})")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--claim", type=int, action="append", choices=list(SIMULATED), help="only this claim; repeatable")
    parser.add_argument("--situation", action="append", choices=SITUATIONS, help="only this situation; repeatable")
    parser.add_argument("--kept", type=Path, help="a file for the cells done so far, to continue from after a stop")
    options = parser.parse_args()
    asked = [cell for cell in cells(options.runs) if cell.claim in (options.claim or SIMULATED)]
    asked = [cell for cell in asked if cell.situation in (options.situation or SITUATIONS)]
    found = count_all(asked, options.kept, options.processes)
    text = PAGE.read_text()
    for name, lines in (("coverage", coverage_table()), ("calibration", tables(found))):
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        lines = with_others(lines, text.partition(begin)[2].partition(end)[0].splitlines()) if name == "calibration" else lines
        block = "\n".join([begin, "", *lines, "", end])
        text = re.sub(re.escape(begin) + ".*?" + re.escape(end), lambda _, block=block: block, text, flags=re.S)
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
