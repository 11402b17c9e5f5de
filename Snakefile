from snakemake.utils import min_version

from fmbench.workflow.configure import check_files
from fmbench.workflow.reproduced import say_whether_reproduced
from fmbench.workflow.scheduling import look_once
from fmbench.workflow.start_server import start_server

min_version("9.0")


# Before Snakemake itself reads the file and writes out its aliases.
check_files(["config.yaml", *workflow.configfiles])


configfile: "config.yaml"


report: "workflow/report/workflow.rst"


onstart:
    look_once(workflow)
    start_server(workflow.local_exec)


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/theory.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/page.smk"
include: "workflow/rules/mlflow.smk"


rule all:
    default_target: True
    input:
        results("index.html"),
        results("claims.csv"),
        results("reproduction.csv"),
        results("table1.csv"),
        results("table2.csv"),
        results("table3.csv"),
        results("table4.csv") if DEQUANTISED else [],
        results("solvers.csv"),
        results("equivalence.csv"),
        expand(results("{gathered}.parquet"), gathered=GATHERED),
        expand(results("figures/{figure}.png"), figure=DRAWN),
        results("summary.json") if settings.tracking.enabled else [],


# Not a job: it also runs after `snakemake results/table1.csv` alone. `make` compares by itself, so that it says so on every call.
onsuccess:
    say_whether_reproduced(settings)
