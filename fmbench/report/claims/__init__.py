"""The paper's ten claims, each tested on parquet rows alone: ``claims.csv``, ``claims.md``, ``claims.tex``.

Each claim is a module (``claim01_...`` to ``claim10_...``) with its statement, thresholds and test; the module ``registry`` lists
them. A test is a function from the rows to lines of evidence (:class:`~fmbench.report.claims.claim.Finding`). A claim that fails
on these rows is shown as failing. A claim that cannot be tested says which file is missing and how to make it. The module
``verdicts`` says how intervals and verdicts come about.

The claims are about the paper's five methods. Nothing is claimed about a user's own methods. Lines on oracles, the closed-form
fields of the training set, show what depends on the path alone; they do not count for a claim's overall verdict.
"""

from fmbench.report.claims.evaluation import evaluate_claims
from fmbench.report.claims.registry import CLAIMS
from fmbench.report.claims.rendering import write_claims
from fmbench.report.claims.sources import read_sources

__all__ = ["CLAIMS", "evaluate_claims", "read_sources", "write_claims"]
