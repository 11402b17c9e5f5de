# What is measured on every trained model.


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
    benchmark:
        results(f"benchmarks/sample/{MODEL}.jsonl")
    params:
        spec=model_spec("sample"),
        code=model_code("sample"),
        launcher=specs.launcher(settings.processes),
        data=subpath(input.manifest, parent=True),
        model=subpath(input.weights, parent=True),
        out=subpath(output.rows, parent=True),
    threads: settings.processes
    resources:
        gpu=GPU * settings.processes,
    conda:
        "../../environment.yml"
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


# Images only, and not part of the main job. Draws solved before are in the cache, which is not declared as output.
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
        cache=results(f"cache/draws/{MODEL}"),
    threads: 1
    resources:
        gpu=GPU,
    conda:
        "../../environment.yml"
    shell:
        "python -m fmbench draws --spec {params.spec:q} --data {params.data:q} --model {params.model:q} --out {params.out:q}"
        " --cache {params.cache:q} --threads {threads} --code {params.code} --log {log:q} --progress lines"


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
        launcher=specs.launcher(settings.processes),
        data=subpath(input.manifest, parent=True),
        samples=subpath(input.samples, parent=True),
        features=subpath(input.extractor, parent=True),
        out=subpath(output.rows, parent=True),
    threads: settings.processes
    resources:
        gpu=GPU * settings.processes,
    conda:
        "../../environment.yml"
    shell:
        "{params.launcher} fmbench quality --spec {params.spec:q} --data {params.data:q} --samples {params.samples:q}"
        " --features {params.features:q} --out {params.out:q} --threads {threads} --code {params.code} --log {log:q} --progress lines"


# What follows is no part of Table 1: the data of the figures along training, at few evaluations, and along t.
rule along:
    input:
        manifest=results("data/{dataset}/manifest.json"),
        snapshots=results(f"models/{MODEL}/snapshots.safetensors"),
        weights=results(f"models/{MODEL}/model.safetensors"),
        config=results(f"models/{MODEL}/config.json"),
        extractor=results("features/{dataset}/extractor.json"),
    output:
        rows=results(f"along/{MODEL}/rows.parquet"),
    log:
        results(f"logs/along/{MODEL}.log"),
    benchmark:
        results(f"benchmarks/along/{MODEL}.jsonl")
    params:
        spec=model_spec("along"),
        code=model_code("along"),
        data=subpath(input.manifest, parent=True),
        model=subpath(input.weights, parent=True),
        features=subpath(input.extractor, parent=True),
        out=subpath(output.rows, parent=True),
        cache=results(f"cache/along/{MODEL}"),
    threads: 1
    resources:
        gpu=GPU,
    conda:
        "../../environment.yml"
    shell:
        "python -m fmbench along --spec {params.spec:q} --data {params.data:q} --model {params.model:q}"
        " --features {params.features:q} --out {params.out:q} --cache {params.cache:q}"
        " --threads {threads} --code {params.code} --log {log:q} --progress lines"


# As in a sweep, cells computed before are in the cache.
rule budget:
    input:
        manifest=results("data/{dataset}/manifest.json"),
        weights=results(f"models/{MODEL}/model.safetensors"),
        config=results(f"models/{MODEL}/config.json"),
        samples=results(f"sample/{MODEL}/samples.npy"),
        nfe=results(f"sample/{MODEL}/nfe.parquet"),
        solved=results(f"sample/{MODEL}/rows.parquet"),
        extractor=results("features/{dataset}/extractor.json"),
    output:
        rows=results(f"budget/{MODEL}/rows.parquet"),
        previews=results(f"budget/{MODEL}/previews.parquet"),
    log:
        results(f"logs/budget/{MODEL}.log"),
    benchmark:
        results(f"benchmarks/budget/{MODEL}.jsonl")
    params:
        spec=model_spec("budget"),
        code=model_code("budget"),
        data=subpath(input.manifest, parent=True),
        model=subpath(input.weights, parent=True),
        samples=subpath(input.samples, parent=True),
        features=subpath(input.extractor, parent=True),
        out=subpath(output.rows, parent=True),
        cache=results(f"cache/budget/{MODEL}"),
    threads: 1
    resources:
        gpu=GPU,
    conda:
        "../../environment.yml"
    shell:
        "python -m fmbench budget --spec {params.spec:q} --data {params.data:q} --model {params.model:q} --samples {params.samples:q}"
        " --features {params.features:q} --out {params.out:q} --cache {params.cache:q} --threads {threads} --code {params.code}"
        " --log {log:q} --progress lines"


rule states:
    input:
        manifest=results("data/{dataset}/manifest.json"),
        weights=results(f"models/{MODEL}/model.safetensors"),
        config=results(f"models/{MODEL}/config.json"),
    output:
        states=results(f"states/{MODEL}/states.parquet"),
    log:
        results(f"logs/states/{MODEL}.log"),
    benchmark:
        results(f"benchmarks/states/{MODEL}.jsonl")
    params:
        spec=model_spec("states"),
        code=model_code("states"),
        data=subpath(input.manifest, parent=True),
        model=subpath(input.weights, parent=True),
        out=subpath(output.states, parent=True),
    threads: 1
    resources:
        gpu=GPU,
    conda:
        "../../environment.yml"
    shell:
        "python -m fmbench states --spec {params.spec:q} --data {params.data:q} --model {params.model:q} --out {params.out:q}"
        " --threads {threads} --code {params.code} --log {log:q} --progress lines"
