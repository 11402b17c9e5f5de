# The rule that tabulates what follows from the methods' definitions alone, without data or training.


rule theory:
    output:
        noise_levels=results("theory/noise_levels.parquet"),
        fields=results("theory/fields.parquet"),
        trajectories=results("theory/trajectories.parquet"),
        densities=results("theory/densities.parquet"),
        equivalence=results("theory/equivalence.parquet"),
        samplers=results("theory/samplers.parquet"),
        identities=results("theory/identities.parquet"),
        summary=report(
            results("equivalence.csv"),
            caption="../report/equivalence.rst",
            category="Tables",
            labels={"table": "Equivalence of DDIM and Euler"},
        ),
    log:
        results("logs/theory.log"),
    conda:
        "../envs/fmbench.yml"
    threads: 1
    resources:
        **asked("theory"),
    params:
        spec=canonical(specs.theory(settings)),
        code=code("theory", specs.theory(settings)),
        out=subpath(output.fields, parent=True),
    shell:
        "printf %s {params.spec:q} | python -m fmbench theory --spec @/dev/stdin --out {params.out:q} --summary {output.summary:q}"
        " --threads {threads} --log {log:q} --progress lines"
