"""Tables and figures, made from parquet alone."""
