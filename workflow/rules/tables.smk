# All rows in one file, and the tables made from it.


rule collect:
    input:
        expand(results("data/{dataset}/manifest.json"), dataset=settings.datasets),
        expand(results("features/{dataset}/rows.parquet"), dataset=settings.datasets),
        of_models(results(f"models/{MODEL}/rows.parquet")),
        of_models(results(f"sample/{MODEL}/rows.parquet")),
        of_models(results(f"sample/{MODEL}/preview.parquet")),
        of_models(results(f"likelihood/{MODEL}/rows.parquet")),
        of_models(results(f"sweep/{MODEL}/rows.parquet")),
        of_models(results(f"quality/{MODEL}/rows.parquet")),
    output:
        records=results("records.parquet"),
        previews=results("previews.parquet"),
    log:
        results("logs/collect.log"),
    params:
        spec=canonical(specs.collect(settings)),
        code=code("collect", {}),
        results=subpath(output.records, parent=True),
        tracking=MLFLOW,
    conda:
        "../../environment.yml"
    shell:
        "python -m fmbench collect --spec {params.spec:q} --results {params.results:q} --tracking {params.tracking:q}"
        " --log {log:q} --progress lines"


# One file of every model in one: nfe, along, budget, budget_previews or states.
rule join:
    input:
        lambda w: [results(file) for file in specs.join(w.joined, settings)["files"]],
    output:
        results("{joined}.parquet"),
    log:
        results("logs/join/{joined}.log"),
    params:
        spec=lambda w: canonical(specs.join(w.joined, settings)),
        code=code("join", {}),
        results=subpath(output[0], parent=True),
    conda:
        "../../environment.yml"
    shell:
        "python -m fmbench join --spec {params.spec:q} --results {params.results:q} --log {log:q} --progress lines"


rule table1:
    input:
        records=results("records.parquet"),
    output:
        csv=report(
            results("table1.csv"),
            caption="../report/table1.rst",
            category="Tables",
            labels={"table": "Table 1"},
        ),
        md=results("table1.md"),
        tex=results("table1.tex"),
    log:
        results("logs/table1.log"),
    params:
        spec=canonical(specs.table1(settings)),
        code=code("tables", {}),
    conda:
        "../../environment.yml"
    shell:
        "python -m fmbench table1 --spec {params.spec:q} --records {input.records:q} --out {output.csv:q} --log {log:q} --progress lines"


rule table4:
    input:
        of_models(results(f"draws/{MODEL}/rows.parquet"), DEQUANTISED),
    output:
        csv=report(
            results("table4.csv"),
            caption="../report/table4.rst",
            category="Tables",
            labels={"table": "Table 4"},
        ),
        md=results("table4.md"),
        tex=results("table4.tex"),
    log:
        results("logs/table4.log"),
    params:
        spec=canonical(TABLE4),
        code=code("table4", {}),
        rows=lambda w, input: [f"--rows={path}" for path in input],
    conda:
        "../../environment.yml"
    shell:
        "python -m fmbench table4 --spec {params.spec:q} {params.rows:q} --out {output.csv:q} --log {log:q} --progress lines"
