"""Where the files lie that fmbench has beside its modules: the workflow, the configs, the profiles and the reference.

In a checkout they are in the folder of the repository. An installed package has copies of them, which ``setup.py`` puts into it.
"""

from pathlib import Path

import fmbench

PACKAGE = Path(fmbench.__file__).parent
IS_CHECKOUT = (PACKAGE.parent / "workflow" / "Snakefile").is_file()
FOLDER = PACKAGE.parent if IS_CHECKOUT else PACKAGE / "project"

SNAKEFILE = FOLDER / "workflow" / "Snakefile"
"""The whole workflow, for ``include:`` and ``module:`` in a Snakefile of your own."""

CAPTIONS = FOLDER / "workflow" / "report"
"""The captions of tables and figures."""

REFERENCE = FOLDER / "results" / "reference" / "default"
"""The results of the reference. An installed package has only its parquet files, not its tables and figures."""
