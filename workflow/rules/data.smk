# Data sets and their feature extractors.


rule prepare:
    output:
        manifest=results("data/{dataset}/manifest.json"),
    log:
        results("logs/prepare/{dataset}.log"),
    params:
        spec=dataset_spec(specs.prepare),
        code=dataset_code("prepare", specs.prepare),
        out=subpath(output.manifest, parent=True),
    threads: lambda w: 16 if settings.dataset(w.dataset).data.source in DECODED else 1
    conda:
        "../../environment.yml"
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
    params:
        spec=dataset_spec(specs.features),
        code=dataset_code("features", specs.features),
        launcher=specs.launcher(settings.processes),
        data=subpath(input.manifest, parent=True),
        out=subpath(output.rows, parent=True),
    threads: settings.processes
    resources:
        gpu=GPU * settings.processes,
    # Before the trainings: what is wrong with an extractor shall not show itself after hours.
    priority: 20
    conda:
        "../../environment.yml"
    shell:
        "{params.launcher} fmbench features --spec {params.spec:q} --data {params.data:q} --out {params.out:q}"
        " --threads {threads} --code {params.code} --log {log:q} --progress lines"
