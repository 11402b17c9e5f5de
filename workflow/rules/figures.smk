# The rule that draws figures from parquet files alone. The data of each figure is written next to it.


rule figure:
    input:
        lambda w: [results(name) for name in (EVIDENCE if w.figure == "claims" else FIGURES[w.figure])],
    output:
        png=report(
            results("figures/{figure}.png"),
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        svg=results("figures/{figure}.svg"),
        pdf=results("figures/{figure}.pdf"),
        data=results("figures/{figure}.parquet"),
    log:
        results("logs/figures/{figure}.log"),
    conda:
        "../envs/fmbench.yml"
    resources:
        **asked("figure"),
    params:
        results=lambda w, output: str(Path(output.png).parent.parent),
        captions=relpath(CAPTIONS),  # which ../report/figure.rst includes
        code=code("figures", {}),
    shell:
        "python -m fmbench figure {wildcards.figure} --results {params.results:q} --out {output.png:q} --out {output.svg:q}"
        " --out {output.pdf:q} --data {output.data:q} --log {log:q} --progress lines"
