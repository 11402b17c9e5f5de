# The rule that trains, and the one that makes pairs for methods with a teacher: one job for each data set, method and seed.
# If the config asks for several processes, torchrun starts them. Each gets its share of the threads and one GPU.
# Checkpoints are not declared outputs, because Snakemake deletes the outputs of a killed job.


rule train:
    input:
        manifest=results("data/{dataset}/manifest.json"),
        pairs=pairs,
    output:
        weights=results(f"models/{MODEL}/model.safetensors"),
        config=results(f"models/{MODEL}/config.json"),
        curve=results(f"models/{MODEL}/loss_curve.parquet"),
        snapshots=results(f"models/{MODEL}/snapshots.safetensors"),
        averages=results(f"models/{MODEL}/averages.safetensors"),
        rows=results(f"models/{MODEL}/rows.parquet"),
    log:
        results(f"logs/train/{MODEL}.log"),
    # The longest jobs first, so that all cores finish at about the same time.
    priority: 10
    conda:
        "../envs/fmbench.yml"
    threads: processes
    resources:
        **asked("train"),
        gpu=lambda w: GPU * processes(w),
    params:
        spec=train_spec,
        code=train_code,
        data=subpath(input.manifest, parent=True),
        out=subpath(output.rows, parent=True),
        checkpoints=CHECKPOINTS,
        pairs=lambda w, input: ["--pairs", dirname(input.pairs[0])] if input.pairs else [],
        tracking=MLFLOW,
        launcher=launcher,
    shell:
        "{params.launcher} fmbench train --spec {params.spec:q} --data {params.data:q} --out {params.out:q}"
        " --checkpoints {params.checkpoints:q} {params.pairs:q} --tracking {params.tracking:q}"
        " --threads {threads} --code {params.code} --log {log:q} --progress lines"


rule pairs:
    input:
        manifest=results("data/{dataset}/manifest.json"),
        weights=lambda w: teacher(w, "model.safetensors"),
        config=lambda w: teacher(w, "config.json"),
    output:
        pairs=results(f"pairs/{MODEL}/pairs.safetensors"),
        rows=results(f"pairs/{MODEL}/rows.parquet"),
    log:
        results(f"logs/pairs/{MODEL}.log"),
    # A training waits for it.
    priority: 10
    conda:
        "../envs/fmbench.yml"
    threads: 1
    resources:
        **asked("pairs"),
        gpu=GPU,
    params:
        spec=model_spec("pairs"),
        code=model_code("pairs"),
        data=subpath(input.manifest, parent=True),
        model=subpath(input.weights, parent=True),
        out=subpath(output.rows, parent=True),
    shell:
        "python -m fmbench pairs --spec {params.spec:q} --data {params.data:q} --model {params.model:q} --out {params.out:q}"
        " --threads {threads} --code {params.code} --log {log:q} --progress lines"
