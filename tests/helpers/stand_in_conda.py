"""A program that does for Snakemake what conda does, without packages of its own: an environment is a venv with ours.

Its environments have another interpreter than the one that runs Snakemake. They are activated as conda's are, and Snakemake
takes PYTHONPATH away in them. What the solver of conda would say to an environment's file is not tested.
"""

import sys
import sysconfig
from pathlib import Path

PROGRAM = """#!{python}
import json, pathlib, subprocess, sys

arguments = sys.argv[1:]
if arguments[:1] == ["info"]:
    print(json.dumps({{"conda_prefix": {prefix!r}, "platform": "linux-64"}}))
elif arguments[:1] == ["--version"]:
    print("conda 26.9.0")
elif arguments[:1] == ["config"]:
    print(json.dumps({{"get": {{"channel_priority": "strict"}}}}))
elif arguments[:2] == ["env", "create"]:
    options = dict(word.removeprefix("--").split("=", 1) for word in arguments if "=" in word)
    options |= {{a.removeprefix("--"): b for a, b in zip(arguments, arguments[1:]) if a.startswith("--")}}
    folder = pathlib.Path(options["prefix"].strip("'\\""))
    pathlib.Path({prefix!r}, "created").write_text(pathlib.Path(options["file"].strip("'\\"")).read_text())
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (library,) = folder.glob("lib/python*/site-packages")
    (library / "dependencies.pth").write_text({packages!r} + "\\n")
elif arguments[:1] != ["clean"]:
    sys.exit("the stand-in has no conda " + " ".join(arguments))
"""
ACTIVATE = """export CONDA_PREFIX="$1" PATH="$1/bin:$PATH"
"""


def install(folder: Path) -> Path:
    """Write the program into a folder, and return the folder of programs for PATH."""
    programs = folder / "bin"
    programs.mkdir(parents=True)
    packages = sysconfig.get_path("purelib")
    (programs / "conda").write_text(PROGRAM.format(python=sys.executable, prefix=str(folder), packages=packages))
    (programs / "conda").chmod(0o755)
    (programs / "activate").write_text(ACTIVATE)
    return programs
