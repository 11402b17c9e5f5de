# Rules that copy results to MLflow for browsing. No other rule reads from MLflow.


# Attaches tables and figures to one MLflow run of the config. The output lists them, even if MLflow could not be reached.
rule mlflow_summary:
    input:
        results("benchmark.json"),
        results("claims.csv"),
        expand(results("{table}.csv"), table=["table1", *OTHER_TABLES]),
        results("equivalence.csv"),
        expand(results("figures/{figure}.png"), figure=DRAWN),
        results("index.html"),
    output:
        listed=results("summary.json"),
    log:
        results("logs/mlflow_summary.log"),
    conda:
        "../envs/fmbench.yml"
    resources:
        **asked("mlflow_summary"),
    params:
        code=code("mlflow_summary", {}),
        results=subpath(output.listed, parent=True),
        tracking=MLFLOW,
    shell:
        "python -m fmbench mlflow-summary --results {params.results:q} --tracking {params.tracking:q}"
        " --out {output.listed:q} --log {log:q} --progress lines"


# Started by `snakemake mlflow_rebuild`: makes the whole store from parquet and JSON, for example after it was deleted.
rule mlflow_rebuild:
    input:
        results("benchmark.json"),
        results("records.parquet"),
        results("models.parquet"),
        results("loss_curves.parquet"),
    log:
        results("logs/mlflow_rebuild.log"),
    conda:
        "../envs/fmbench.yml"
    resources:
        **asked("mlflow_rebuild"),
    params:
        code=code("mlflow_summary", {}),
        results=subpath(input[0], parent=True),
        tracking=MLFLOW,
    shell:
        "python -m fmbench mlflow-rebuild --results {params.results:q} --tracking {params.tracking:q}"
        " --log {log:q} --progress lines"
