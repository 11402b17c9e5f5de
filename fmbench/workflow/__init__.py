"""What the Snakefile needs: the check of the config, and the environment of all jobs. Nothing here imports torch by itself."""
