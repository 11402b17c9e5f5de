"""Copies of the workflow, the configs, the profiles and the reference go into the package, where `fmbench init` finds them.

Everything else about the package is in pyproject.toml.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PROJECT = (
    "config.yaml",
    "configs/*.yaml",
    "profiles/**/*.*",
    "workflow/**/*.*",
    "workflow/Snakefile",
    "results/reference/default/benchmark.json",
    "results/reference/default/claims.csv",
    *(
        f"results/reference/default/{name}.parquet"
        for name in ("records", "learning_curve", "few_step", "half_way", "dequantisation")
    ),
)
"""What a package has in ``fmbench/project``. A run is compared with the parquet files of the reference."""


class BuildWithProject(build_py):
    """Builds the package with the files of :data:`PROJECT`. An editable installation finds them in the repository."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        root = Path(__file__).parent
        for pattern in PROJECT:
            files = [path for path in sorted(root.glob(pattern)) if path.is_file()]
            if not files:
                raise FileNotFoundError(f"the package needs {pattern}, which is not in {root}")
            for path in files:
                copy = Path(self.build_lib, "fmbench", "project", path.relative_to(root))
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)


setup(cmdclass={"build_py": BuildWithProject})
