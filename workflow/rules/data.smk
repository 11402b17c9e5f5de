# Rules that prepare data sets and their feature extractors.


rule prepare:
    output:
        manifest=results("data/{dataset}/manifest.json"),
    log:
        results("logs/prepare/{dataset}.log"),
    conda:
        "../envs/fmbench.yml"
    threads: lambda w: DECODERS if settings.dataset(w.dataset).data.source in DECODED else 1
    resources:
        **asked("prepare"),
    params:
        spec=dataset_spec(specs.prepare),
        code=dataset_code("prepare", specs.prepare),
        out=subpath(output.manifest, parent=True),
    shell:
        "python -m fmbench prepare --spec {params.spec:q} --out {params.out:q}"
        " --threads {threads} --log {log:q} --progress lines"


rule features:
    input:
        manifest=results("data/{dataset}/manifest.json"),
    output:
        extractor=results("features/{dataset}/extractor.json"),
        rows=results("features/{dataset}/rows.parquet"),
    log:
        results("logs/features/{dataset}.log"),
    # Before the trainings, so that an error in an extractor shows at once and not after hours.
    priority: 20
    conda:
        "../envs/fmbench.yml"
    threads: settings.processes
    resources:
        **asked("features"),
        gpu=GPU * settings.processes,
    params:
        spec=dataset_spec(specs.features),
        code=dataset_code("features", specs.features),
        launcher=execution.launcher(settings.processes),
        data=subpath(input.manifest, parent=True),
        out=subpath(output.rows, parent=True),
    shell:
        "{params.launcher} fmbench features --spec {params.spec:q} --data {params.data:q} --out {params.out:q}"
        " --threads {threads} --code {params.code} --log {log:q} --progress lines"


# Super-resolution only: Table 2's rows without a training.
rule baselines:
    input:
        manifest=results("data/{dataset}/manifest.json"),
        extractor=results("features/{dataset}/extractor.json"),
    output:
        rows=results("baselines/{dataset}/rows.parquet"),
        previews=results("baselines/{dataset}/previews.parquet"),
    log:
        results("logs/baselines/{dataset}.log"),
    # Before the trainings, as the features are.
    priority: 20
    conda:
        "../envs/fmbench.yml"
    threads: 1
    resources:
        **asked("baselines"),
        gpu=GPU,
    params:
        spec=dataset_spec(specs.baselines),
        code=dataset_code("baselines", specs.features),
        data=subpath(input.manifest, parent=True),
        features=subpath(input.extractor, parent=True),
        out=subpath(output.rows, parent=True),
    shell:
        "python -m fmbench baselines --spec {params.spec:q} --data {params.data:q} --features {params.features:q}"
        " --out {params.out:q} --threads {threads} --code {params.code} --log {log:q} --progress lines"
