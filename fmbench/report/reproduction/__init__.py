"""Did a run reproduce the reference that fmbench ships? ``reproduction.csv`` and one sentence.

Every number of the run whose settings the reference has too is compared with the reference's seeds (module ``verdicts``). The
sentence says how many agree, and which are off. The module ``statistics`` has the interval and the test of all numbers together,
``settings`` decides what can be compared.

An equal run on another machine has other values, because rounding changes a training. It has a number that is off, or numbers
that differ together, with a probability of at most 5 %, if the values are normal.
"""

from fmbench.config.installation import REFERENCE
from fmbench.report.reproduction.summary import Summary, summary, write_reproduction

__all__ = ["REFERENCE", "Summary", "summary", "write_reproduction"]
