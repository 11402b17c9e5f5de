"""``python -m fmbench``."""

from fmbench.cli import main

main()
