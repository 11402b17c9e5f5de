# What is measured on every trained model.


rule sample:
    input:
        manifest=results("data/{dataset}/manifest.json"),
        weights=results(f"models/{MODEL}/model.safetensors"),
        config=results(f"models/{MODEL}/config.json"),
    output:
        samples=results(f"sample/{MODEL}/samples.npy"),
        preview=results(f"sample/{MODEL}/preview.parquet"),
        rows=results(f"sample/{MODEL}/rows.parquet"),
    log:
        results(f"logs/sample/{MODEL}.log"),
    benchmark:
        results(f"benchmarks/sample/{MODEL}.jsonl")
    params:
        spec=model_spec("sample"),
        code=model_code("sample"),
        data=subpath(input.manifest, parent=True),
        model=subpath(input.weights, parent=True),
        out=subpath(output.rows, parent=True),
    threads: 1
    resources:
        gpu=GPU,
    conda:
        "../../environment.yml"
    shell:
        "python -m fmbench sample --spec {params.spec:q} --data {params.data:q} --model {params.model:q} --out {params.out:q}"
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
    benchmark:
        results(f"benchmarks/likelihood/{MODEL}.jsonl")
    params:
        spec=model_spec("likelihood"),
        code=model_code("likelihood"),
        data=subpath(input.manifest, parent=True),
        model=subpath(input.weights, parent=True),
        out=subpath(output.rows, parent=True),
    threads: 1
    resources:
        gpu=GPU,
    conda:
        "../../environment.yml"
    shell:
        "python -m fmbench likelihood --spec {params.spec:q} --data {params.data:q} --model {params.model:q} --out {params.out:q}"
        " --threads {threads} --code {params.code} --log {log:q} --progress lines"


# Images only, and not part of the main job.
rule draws:
    input:
        manifest=results("data/{dataset}/manifest.json"),
        weights=results(f"models/{MODEL}/model.safetensors"),
        config=results(f"models/{MODEL}/config.json"),
    output:
        rows=results(f"draws/{MODEL}/rows.parquet"),
    log:
        results(f"logs/draws/{MODEL}.log"),
    benchmark:
        results(f"benchmarks/draws/{MODEL}.jsonl")
    params:
        spec=model_spec("draws"),
        code=model_code("draws"),
        data=subpath(input.manifest, parent=True),
        model=subpath(input.weights, parent=True),
        out=subpath(output.rows, parent=True),
    threads: 1
    resources:
        gpu=GPU,
    conda:
        "../../environment.yml"
    shell:
        "python -m fmbench draws --spec {params.spec:q} --data {params.data:q} --model {params.model:q} --out {params.out:q}"
        " --threads {threads} --code {params.code} --log {log:q} --progress lines"


# One job walks all cells of a model; cells computed before are in the cache, which is not declared as output.
rule sweep:
    input:
        manifest=results("data/{dataset}/manifest.json"),
        weights=results(f"models/{MODEL}/model.safetensors"),
        config=results(f"models/{MODEL}/config.json"),
    output:
        rows=results(f"sweep/{MODEL}/rows.parquet"),
    log:
        results(f"logs/sweep/{MODEL}.log"),
    benchmark:
        results(f"benchmarks/sweep/{MODEL}.jsonl")
    params:
        spec=model_spec("sweep"),
        code=model_code("sweep"),
        data=subpath(input.manifest, parent=True),
        model=subpath(input.weights, parent=True),
        out=subpath(output.rows, parent=True),
        cache=results(f"cache/sweep/{MODEL}"),
    threads: 1
    resources:
        gpu=GPU,
    conda:
        "../../environment.yml"
    shell:
        "python -m fmbench sweep --spec {params.spec:q} --data {params.data:q} --model {params.model:q} --out {params.out:q}"
        " --cache {params.cache:q} --threads {threads} --code {params.code} --log {log:q} --progress lines"


rule quality:
    input:
        manifest=results("data/{dataset}/manifest.json"),
        samples=results(f"sample/{MODEL}/samples.npy"),
        extractor=results("features/{dataset}/extractor.json"),
    output:
        rows=results(f"quality/{MODEL}/rows.parquet"),
    log:
        results(f"logs/quality/{MODEL}.log"),
    params:
        spec=model_spec("quality"),
        code=model_code("quality"),
        data=subpath(input.manifest, parent=True),
        samples=subpath(input.samples, parent=True),
        features=subpath(input.extractor, parent=True),
        out=subpath(output.rows, parent=True),
    threads: 1
    resources:
        gpu=GPU,
    conda:
        "../../environment.yml"
    shell:
        "python -m fmbench quality --spec {params.spec:q} --data {params.data:q} --samples {params.samples:q}"
        " --features {params.features:q} --out {params.out:q} --threads {threads} --code {params.code} --log {log:q} --progress lines"
