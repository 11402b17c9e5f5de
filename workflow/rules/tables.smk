# Rules that join all rows into one file, and make the tables and claims from it.

# The files that the claims are tested on, as far as this config makes them. The figure of the claims needs them, too.
EVIDENCE = [
    "records.parquet",
    *(f"{name}.parquet" for name in ("learning_curve", "few_step", "half_way")),
    *(["dequantisation.parquet"] if "table4" in OTHER_TABLES else []),
    "theory/fields.parquet",
    "theory/trajectories.parquet",
    "theory/identities.parquet",
]


rule collect:
    input:
        expand(results("data/{dataset}/manifest.json"), dataset=settings.datasets),
        expand(results("features/{dataset}/rows.parquet"), dataset=settings.datasets),
        of_models(results(f"models/{MODEL}/rows.parquet")),
        of_models(results(f"models/{MODEL}/config.json")),
        of_models(results(f"models/{MODEL}/loss_curve.parquet")),
        of_models(results(f"sample/{MODEL}/preview.parquet")),
        [of_models(results(f"{name}/{MODEL}/rows.parquet"), name) for name, stage in MODEL_STAGES.items() if stage.collected],
        expand(results("baselines/{dataset}/rows.parquet"), dataset=SUPER_RESOLVED),
        expand(results("baselines/{dataset}/previews.parquet"), dataset=SUPER_RESOLVED),
    output:
        records=results("records.parquet"),
        previews=results("previews.parquet"),
        settings=results("settings.parquet"),
        models=results("models.parquet"),
        curves=results("loss_curves.parquet"),
        benchmark=results("benchmark.json"),
    log:
        results("logs/collect.log"),
    conda:
        "../envs/fmbench.yml"
    resources:
        **asked("collect"),
    params:
        spec=canonical(specs.collect(settings)),
        code=code("collect", {}),
        config=canonical(written_out(settings)),
        results=subpath(output.records, parent=True),
        tracking=MLFLOW,
    shell:
        "printf %s {params.config:q} | python -m fmbench collect --spec {params.spec:q} --results {params.results:q}"
        " --config @/dev/stdin --tracking {params.tracking:q} --log {log:q} --progress lines"


# Joins one file of every model into one.
rule gather:
    input:
        lambda w: [results(file) for file in specs.gather(w.gathered, settings)["files"]],
    output:
        results("{gathered}.parquet"),
    log:
        results("logs/gather/{gathered}.log"),
    conda:
        "../envs/fmbench.yml"
    resources:
        **asked("gather"),
    params:
        spec=lambda w: canonical(specs.gather(w.gathered, settings)),
        code=code("gather", {}),
        results=subpath(output[0], parent=True),
    shell:
        "printf %s {params.spec:q} | python -m fmbench gather --spec @/dev/stdin --results {params.results:q}"
        " --log {log:q} --progress lines"


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
    conda:
        "../envs/fmbench.yml"
    resources:
        **asked("table1"),
    params:
        spec=canonical(specs.table1(settings)),
        code=code("table1", {}),
    shell:
        "printf %s {params.spec:q} | python -m fmbench table1 --spec @/dev/stdin --records {input.records:q} --out {output.csv:q}"
        " --log {log:q} --progress lines"


rule table2:
    input:
        records=results("records.parquet"),
    output:
        csv=report(
            results("table2.csv"),
            caption="../report/table2.rst",
            category="Tables",
            labels={"table": "Table 2"},
        ),
        md=results("table2.md"),
        tex=results("table2.tex"),
    log:
        results("logs/table2.log"),
    conda:
        "../envs/fmbench.yml"
    resources:
        **asked("table2"),
    params:
        code=code("table2", {}),
    shell:
        "python -m fmbench table2 --records {input.records:q} --out {output.csv:q} --log {log:q} --progress lines"


rule table3:
    input:
        settings=results("settings.parquet"),
    output:
        csv=report(
            results("table3.csv"),
            caption="../report/table3.rst",
            category="Tables",
            labels={"table": "Table 3"},
        ),
        md=results("table3.md"),
        tex=results("table3.tex"),
    log:
        results("logs/table3.log"),
    conda:
        "../envs/fmbench.yml"
    resources:
        **asked("table3"),
    params:
        code=code("table3", {}),
    shell:
        "python -m fmbench table3 --settings {input.settings:q} --out {output.csv:q} --log {log:q} --progress lines"


rule table4:
    input:
        of_models(results(f"dequantisation/{MODEL}/rows.parquet"), "dequantisation"),
    output:
        csv=report(
            results("table4.csv"),
            caption="../report/table4.rst",
            category="Tables",
            labels={"table": "Table 4"},
        ),
        md=results("table4.md"),
        tex=results("table4.tex"),
        rows=results("dequantisation.parquet"),
    log:
        results("logs/table4.log"),
    conda:
        "../envs/fmbench.yml"
    resources:
        **asked("table4"),
    params:
        spec=canonical(specs.table4(settings)),
        code=code("table4", {}),
    shell:
        "printf '%s\\n' {input:q} | python -m fmbench table4 --spec {params.spec:q} --rows @/dev/stdin --out {output.csv:q}"
        " --gathered {output.rows:q} --log {log:q} --progress lines"


rule solvers:
    input:
        records=results("records.parquet"),
        few_step=results("few_step.parquet"),
    output:
        csv=report(
            results("solvers.csv"),
            caption="../report/solvers.rst",
            category="Tables",
            labels={"table": "Solvers"},
        ),
        md=results("solvers.md"),
        tex=results("solvers.tex"),
    log:
        results("logs/solvers.log"),
    conda:
        "../envs/fmbench.yml"
    resources:
        **asked("solvers"),
    params:
        code=code("solvers", {}),
    shell:
        "python -m fmbench solvers --records {input.records:q} --few-step {input.few_step:q} --out {output.csv:q}"
        " --log {log:q} --progress lines"


# Only for a config whose methods make a grid.
rule grid3x3:
    input:
        records=results("records.parquet"),
        models=results("models.parquet"),
    output:
        csv=report(
            results("grid3x3.csv"),
            caption="../report/grid3x3.rst",
            category="Tables",
            labels={"table": "Every prediction with every loss"},
        ),
        md=results("grid3x3.md"),
        tex=results("grid3x3.tex"),
    log:
        results("logs/grid3x3.log"),
    conda:
        "../envs/fmbench.yml"
    resources:
        **asked("grid3x3"),
    params:
        results=subpath(output.csv, parent=True),
        code=code("grid3x3", {}),
    shell:
        "python -m fmbench grid3x3 --results {params.results:q} --out {output.csv:q} --log {log:q} --progress lines"


# Only for a config with a method that is not one of the paper's.
rule pareto:
    input:
        records=results("records.parquet"),
        models=results("models.parquet"),
        few_step=results("few_step.parquet"),
    output:
        csv=report(
            results("pareto.csv"),
            caption="../report/pareto.rst",
            category="Tables",
            labels={"table": "Quality and cost"},
        ),
        md=results("pareto.md"),
        tex=results("pareto.tex"),
    log:
        results("logs/pareto.log"),
    conda:
        "../envs/fmbench.yml"
    resources:
        **asked("pareto"),
    params:
        results=subpath(output.csv, parent=True),
        code=code("pareto", {}),
    shell:
        "python -m fmbench pareto --results {params.results:q} --out {output.csv:q} --log {log:q} --progress lines"


rule claims:
    input:
        [results(name) for name in EVIDENCE],
    output:
        csv=report(
            results("claims.csv"),
            caption="../report/claims.rst",
            category="Claims",
            labels={"claims": "every line of evidence"},
        ),
        md=report(
            results("claims.md"),
            caption="../report/claims.rst",
            category="Claims",
            labels={"claims": "the page"},
        ),
        tex=results("claims.tex"),
    log:
        results("logs/claims.log"),
    conda:
        "../envs/fmbench.yml"
    resources:
        **asked("claims"),
    params:
        results=subpath(output.csv, parent=True),
        code=code("claims", {}),
    shell:
        "python -m fmbench claims --results {params.results:q} --out {output.csv:q} --log {log:q} --progress lines"


# Every number beside the reference that fmbench ships. After any target the Snakefile runs the same command.
rule reproduce:
    input:
        results("records.parquet"),
        results("learning_curve.parquet"),
        results("few_step.parquet"),
        results("dequantisation.parquet") if "table4" in OTHER_TABLES else [],
        [str(file) for file in [REFERENCE / "benchmark.json"] if file.exists()],
    output:
        csv=report(
            results("reproduction.csv"),
            caption="../report/reproduction.rst",
            category="Claims",
            labels={"claims": "agreement with the reference"},
        ),
    log:
        results("logs/reproduce.log"),
    conda:
        "../envs/fmbench.yml"
    resources:
        **asked("reproduce"),
    params:
        results=subpath(output.csv, parent=True),
        code=code("reproduction", {}),
    shell:
        "python -m fmbench reproduce --results {params.results:q} --out {output.csv:q} --log {log:q} --progress lines"
