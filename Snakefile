from snakemake.utils import min_version

min_version("9.0")


configfile: "config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/theory.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/figures.smk"


rule all:
    default_target: True
    input:
        results("table1.csv"),
        results("table4.csv") if DEQUANTISED else [],
        results("equivalence.csv"),
        expand(results("{joined}.parquet"), joined=JOINED),
        expand(results("figures/{figure}.png"), figure=FIGURES),
