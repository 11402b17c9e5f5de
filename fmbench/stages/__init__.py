"""One module per stage of the DAG, each with one function ``run``: spec and folders in, files out."""
