"""The paper's claims, each tested on parquet rows alone: ``claims.csv``, ``claims.md``, ``claims.tex``.

Each claim is a module (``claim01_...`` to ``claim10_...``) with its statement, thresholds and test; the module ``registry`` lists
them. A test is a function from the rows to lines of evidence (:class:`~fmbench.report.claims.claim.Evidence`). The module
``decision`` decides the lines of a claim together, and makes each a :class:`~fmbench.report.claims.claim.Finding`. If a claim
fails on these rows, the files say so. If a claim cannot be tested, they say which file is missing and how to make it. The module
``student`` defines the interval, and ``verdicts`` the levels.

The claims are about the paper's five methods, not about a user's methods. Lines on oracles (the closed-form fields of the
training set) show what depends on the path alone. They do not count for the overall verdict of a claim.
"""

from fmbench.report.claims.evaluation import evaluate_claims
from fmbench.report.claims.registry import CLAIMS
from fmbench.report.claims.rendering import claim_lines, write_claims
from fmbench.report.claims.sources import read_sources

__all__ = ["CLAIMS", "claim_lines", "evaluate_claims", "read_sources", "write_claims"]
