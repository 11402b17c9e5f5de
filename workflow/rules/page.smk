# The rule that writes one page for a browser, and the part of it that Snakemake's own report shows first.


rule page:
    input:
        tables=results("table1.md"),
        claims=results("claims.md"),
        reproduction=results("reproduction.csv"),
        others=[results(f"{name}.md") for name in OTHER_TABLES],
        figures=expand(results("figures/{figure}.png"), figure=DRAWN),
    output:
        page=report(
            results("index.html"),
            caption="../report/page.rst",
            category="Summary",
            labels={"page": "Claims, tables and figures"},
        ),
        head=results("index.head.html"),
    log:
        results("logs/page.log"),
    conda:
        "../envs/fmbench.yml"
    resources:
        **asked("page"),
    params:
        results=subpath(output.page, parent=True),
        captions=relpath(CAPTIONS),
        code=code("page", {}),
    shell:
        "python -m fmbench page --results {params.results:q} --out {output.page:q} --fragment {output.head:q}"
        " --captions {params.captions:q} --log {log:q} --progress lines"
