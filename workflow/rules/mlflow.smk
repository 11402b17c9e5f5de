# MLflow beyond the trainings' own runs: a mirror for browsing that nothing reads from.


# Tables and figures in one run of the config. The list of what is attached is the output, whether or not MLflow was there.
rule mlflow_summary:
    input:
        results("benchmark.json"),
        results("claims.csv"),
        expand(results("{table}.csv"), table=["table1", "table2", "table3"]),
        results("table4.csv") if DEQUANTISED else [],
        results("equivalence.csv"),
        expand(results("figures/{figure}.png"), figure=FIGURES),
        results("index.html"),
    output:
        listed=results("summary.json"),
    log:
        results("logs/mlflow_summary.log"),
    params:
        code=code("summary", {}),
        results=subpath(output.listed, parent=True),
        tracking=MLFLOW,
    conda:
        "../../environment.yml"
    shell:
        "python -m fmbench mlflow-summary --results {params.results:q} --tracking {params.tracking:q}"
        " --out {output.listed:q} --log {log:q} --progress lines"


# A target for `snakemake mlflow_rebuild`: the whole store from parquet and JSON, after it was deleted, say.
rule mlflow_rebuild:
    input:
        results("benchmark.json"),
        results("records.parquet"),
        results("models.parquet"),
        results("loss_curves.parquet"),
    log:
        results("logs/mlflow_rebuild.log"),
    params:
        code=code("summary", {}),
        results=subpath(input[0], parent=True),
        tracking=MLFLOW,
    conda:
        "../../environment.yml"
    shell:
        "python -m fmbench mlflow-rebuild --results {params.results:q} --tracking {params.tracking:q}"
        " --log {log:q} --progress lines"
