# The workflow is in workflow/Snakefile, where catalogues look for it. With this file it also runs from here, by `snakemake`.


include: "workflow/Snakefile"


# Snakemake takes the target of a plain `snakemake` from this file only.
workflow.default_target = "all"
