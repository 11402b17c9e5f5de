"""Run the command line by ``python -m fmbench``."""

from fmbench.cli.main import main

main()
