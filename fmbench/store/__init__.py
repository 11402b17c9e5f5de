"""Everything on disk: atomic files, parquet rows, checkpoints, hashes, archives, MLflow."""
