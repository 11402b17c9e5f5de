# Rules that measure every model, trained or oracle.


rule sample:
    input:
        manifest=results("data/{dataset}/manifest.json"),
        weights=results(f"models/{MODEL}/model.safetensors"),
        config=results(f"models/{MODEL}/config.json"),
    output:
        samples=results(f"sample/{MODEL}/samples.npy"),
        preview=results(f"sample/{MODEL}/preview.parquet"),
        nfe=results(f"sample/{MODEL}/nfe.parquet"),
        rows=results(f"sample/{MODEL}/rows.parquet"),
    log:
        results(f"logs/sample/{MODEL}.log"),
    conda:
        "../envs/fmbench.yml"
    threads: settings.processes
    resources:
        **asked("sample"),
        gpu=GPU * settings.processes,
    params:
        spec=model_spec("sample"),
        code=model_code("sample"),
        launcher=execution.launcher(settings.processes),
        data=subpath(input.manifest, parent=True),
        model=subpath(input.weights, parent=True),
        out=subpath(output.rows, parent=True),
    shell:
        "{params.launcher} fmbench sample --spec {params.spec:q} --data {params.data:q} --model {params.model:q} --out {params.out:q}"
        " --threads {threads} --code {params.code} --log {log:q} --progress lines"


rule likelihood:
    input:
        manifest=results("data/{dataset}/manifest.json"),
        weights=results(f"models/{MODEL}/model.safetensors"),
        config=results(f"models/{MODEL}/config.json"),
    output:
        rows=results(f"likelihood/{MODEL}/rows.parquet"),
    log:
        results(f"logs/likelihood/{MODEL}.log"),
    conda:
        "../envs/fmbench.yml"
    threads: 1
    resources:
        **asked("likelihood"),
        gpu=GPU,
    params:
        spec=model_spec("likelihood"),
        code=model_code("likelihood"),
        data=subpath(input.manifest, parent=True),
        model=subpath(input.weights, parent=True),
        out=subpath(output.rows, parent=True),
    shell:
        "python -m fmbench likelihood --spec {params.spec:q} --data {params.data:q} --model {params.model:q} --out {params.out:q}"
        " --threads {threads} --code {params.code} --log {log:q} --progress lines"


# Images only, and not part of Table 1. A killed job continues from its cache. The cache is not a declared output, because
# Snakemake deletes the outputs of a killed job.
rule dequantisation:
    input:
        manifest=results("data/{dataset}/manifest.json"),
        weights=results(f"models/{MODEL}/model.safetensors"),
        config=results(f"models/{MODEL}/config.json"),
    output:
        rows=results(f"dequantisation/{MODEL}/rows.parquet"),
    log:
        results(f"logs/dequantisation/{MODEL}.log"),
    conda:
        "../envs/fmbench.yml"
    threads: 1
    resources:
        **asked("dequantisation"),
        gpu=GPU,
    params:
        spec=model_spec("dequantisation"),
        code=model_code("dequantisation"),
        data=subpath(input.manifest, parent=True),
        model=subpath(input.weights, parent=True),
        out=subpath(output.rows, parent=True),
        cache=results(f"cache/dequantisation/{MODEL}"),
    shell:
        "python -m fmbench dequantisation --spec {params.spec:q} --data {params.data:q} --model {params.model:q} --out {params.out:q}"
        " --cache {params.cache:q} --threads {threads} --code {params.code} --log {log:q} --progress lines"


# One job computes all cells (solver, grid, NFE) of a model. The cache keeps the finished ones.
rule sweep:
    input:
        manifest=results("data/{dataset}/manifest.json"),
        weights=results(f"models/{MODEL}/model.safetensors"),
        config=results(f"models/{MODEL}/config.json"),
    output:
        rows=results(f"sweep/{MODEL}/rows.parquet"),
    log:
        results(f"logs/sweep/{MODEL}.log"),
    conda:
        "../envs/fmbench.yml"
    threads: 1
    resources:
        **asked("sweep"),
        gpu=GPU,
    params:
        spec=model_spec("sweep"),
        code=model_code("sweep"),
        data=subpath(input.manifest, parent=True),
        model=subpath(input.weights, parent=True),
        out=subpath(output.rows, parent=True),
        cache=results(f"cache/sweep/{MODEL}"),
    shell:
        "python -m fmbench sweep --spec {params.spec:q} --data {params.data:q} --model {params.model:q} --out {params.out:q}"
        " --cache {params.cache:q} --threads {threads} --code {params.code} --log {log:q} --progress lines"


rule sample_quality:
    input:
        manifest=results("data/{dataset}/manifest.json"),
        samples=results(f"sample/{MODEL}/samples.npy"),
        extractor=results("features/{dataset}/extractor.json"),
    output:
        rows=results(f"sample_quality/{MODEL}/rows.parquet"),
    log:
        results(f"logs/sample_quality/{MODEL}.log"),
    conda:
        "../envs/fmbench.yml"
    threads: settings.processes
    resources:
        **asked("sample_quality"),
        gpu=GPU * settings.processes,
    params:
        spec=model_spec("sample_quality"),
        code=model_code("sample_quality"),
        launcher=execution.launcher(settings.processes),
        data=subpath(input.manifest, parent=True),
        samples=subpath(input.samples, parent=True),
        features=subpath(input.extractor, parent=True),
        out=subpath(output.rows, parent=True),
    shell:
        "{params.launcher} fmbench sample-quality --spec {params.spec:q} --data {params.data:q} --samples {params.samples:q}"
        " --features {params.features:q} --out {params.out:q} --threads {threads} --code {params.code} --log {log:q} --progress lines"


# Super-resolution only: Table 2.
rule super_resolution:
    input:
        manifest=results("data/{dataset}/manifest.json"),
        samples=results(f"sample/{MODEL}/samples.npy"),
        solved=results(f"sample/{MODEL}/rows.parquet"),
        extractor=results("features/{dataset}/extractor.json"),
        baselines=results("baselines/{dataset}/rows.parquet"),
    output:
        rows=results(f"super_resolution/{MODEL}/rows.parquet"),
    log:
        results(f"logs/super_resolution/{MODEL}.log"),
    conda:
        "../envs/fmbench.yml"
    threads: 1
    resources:
        **asked("super_resolution"),
        gpu=GPU,
    params:
        spec=model_spec("super_resolution"),
        code=model_code("super_resolution"),
        data=subpath(input.manifest, parent=True),
        samples=subpath(input.samples, parent=True),
        features=subpath(input.extractor, parent=True),
        baselines=subpath(input.baselines, parent=True),
        out=subpath(output.rows, parent=True),
    shell:
        "python -m fmbench super-resolution --spec {params.spec:q} --data {params.data:q} --samples {params.samples:q}"
        " --features {params.features:q} --baselines {params.baselines:q} --out {params.out:q} --threads {threads}"
        " --code {params.code} --log {log:q} --progress lines"


# The next three rules are not part of Table 1. They make the data of the figures during training, with few evaluations and over t.
rule learning_curve:
    input:
        manifest=results("data/{dataset}/manifest.json"),
        snapshots=results(f"models/{MODEL}/snapshots.safetensors"),
        weights=results(f"models/{MODEL}/model.safetensors"),
        config=results(f"models/{MODEL}/config.json"),
        extractor=results("features/{dataset}/extractor.json"),
    output:
        rows=results(f"learning_curve/{MODEL}/rows.parquet"),
    log:
        results(f"logs/learning_curve/{MODEL}.log"),
    conda:
        "../envs/fmbench.yml"
    threads: 1
    resources:
        **asked("learning_curve"),
        gpu=GPU,
    params:
        spec=model_spec("learning_curve"),
        code=model_code("learning_curve"),
        data=subpath(input.manifest, parent=True),
        model=subpath(input.weights, parent=True),
        features=subpath(input.extractor, parent=True),
        out=subpath(output.rows, parent=True),
        cache=results(f"cache/learning_curve/{MODEL}"),
    shell:
        "python -m fmbench learning-curve --spec {params.spec:q} --data {params.data:q} --model {params.model:q}"
        " --features {params.features:q} --out {params.out:q} --cache {params.cache:q}"
        " --threads {threads} --code {params.code} --log {log:q} --progress lines"


# As in a sweep, the cache keeps the finished cells.
rule few_step:
    input:
        manifest=results("data/{dataset}/manifest.json"),
        weights=results(f"models/{MODEL}/model.safetensors"),
        config=results(f"models/{MODEL}/config.json"),
        samples=results(f"sample/{MODEL}/samples.npy"),
        nfe=results(f"sample/{MODEL}/nfe.parquet"),
        solved=results(f"sample/{MODEL}/rows.parquet"),
        extractor=results("features/{dataset}/extractor.json"),
    output:
        rows=results(f"few_step/{MODEL}/rows.parquet"),
        previews=results(f"few_step/{MODEL}/previews.parquet"),
    log:
        results(f"logs/few_step/{MODEL}.log"),
    conda:
        "../envs/fmbench.yml"
    threads: 1
    resources:
        **asked("few_step"),
        gpu=GPU,
    params:
        spec=model_spec("few_step"),
        code=model_code("few_step"),
        data=subpath(input.manifest, parent=True),
        model=subpath(input.weights, parent=True),
        samples=subpath(input.samples, parent=True),
        features=subpath(input.extractor, parent=True),
        out=subpath(output.rows, parent=True),
        cache=results(f"cache/few_step/{MODEL}"),
    shell:
        "python -m fmbench few-step --spec {params.spec:q} --data {params.data:q} --model {params.model:q} --samples {params.samples:q}"
        " --features {params.features:q} --out {params.out:q} --cache {params.cache:q} --threads {threads} --code {params.code}"
        " --log {log:q} --progress lines"


rule trajectory:
    input:
        manifest=results("data/{dataset}/manifest.json"),
        weights=results(f"models/{MODEL}/model.safetensors"),
        config=results(f"models/{MODEL}/config.json"),
    output:
        states=results(f"trajectory/{MODEL}/trajectory.parquet"),
        rows=results(f"trajectory/{MODEL}/rows.parquet"),
    log:
        results(f"logs/trajectory/{MODEL}.log"),
    conda:
        "../envs/fmbench.yml"
    threads: 1
    resources:
        **asked("trajectory"),
        gpu=GPU,
    params:
        spec=model_spec("trajectory"),
        code=model_code("trajectory"),
        data=subpath(input.manifest, parent=True),
        model=subpath(input.weights, parent=True),
        out=subpath(output.states, parent=True),
    shell:
        "python -m fmbench trajectory --spec {params.spec:q} --data {params.data:q} --model {params.model:q} --out {params.out:q}"
        " --threads {threads} --code {params.code} --log {log:q} --progress lines"
