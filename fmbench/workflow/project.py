"""A project folder for those who have installed fmbench and have no clone: Snakefile, config, presets and profiles."""

import shutil
from pathlib import Path

from fmbench.config.installation import FOLDER
from fmbench.errors import ConfigError

SNAKEFILE = """# The workflow of the installed fmbench, with the config of this folder:
#   snakemake --cores all results/table1.csv
from fmbench.config.installation import SNAKEFILE


include: str(SNAKEFILE)


# Snakemake takes the target of a plain `snakemake` from this file only.
workflow.default_target = "all"
"""
COPIED = ("config.yaml", "configs", "profiles")
SCHEMA = "workflow/schemas/config.schema.json"


def lay_out(folder: Path) -> list[Path]:
    """Write a project into a folder, which is made if it is not there, and return the files and folders written.

    Raises:
        ConfigError: the folder has one of them already, or is a file. Nothing is written then.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; give the name of a folder: fmbench init my_benchmark")
    there = [name for name in ("Snakefile", *COPIED) if (folder / name).exists()]
    if there:
        raise ConfigError(
            f"{folder} has {', '.join(there)} already, and no file is replaced; give another folder: fmbench init my_benchmark"
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Snakefile").write_text(SNAKEFILE, encoding="utf-8")
    for name in COPIED:
        source = FOLDER / name
        if source.is_dir():
            shutil.copytree(source, folder / name)
        else:
            text = source.read_text(encoding="utf-8")
            # Editors find the schema by the first line.
            (folder / name).write_text(text.replace(f"$schema={SCHEMA}", f"$schema={FOLDER / SCHEMA}", 1), encoding="utf-8")
    return [folder / name for name in ("Snakefile", *COPIED)]
