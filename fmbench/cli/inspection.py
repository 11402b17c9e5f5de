"""Commands that look at a config, this machine or a results folder. They run no stage of the workflow."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fmbench.cli.options import ConfigFiles, ResultsFolder, Threads
from fmbench.cli.output import echo
from fmbench.config.stages import GATHERED, STAGES
from fmbench.errors import ConfigError

if TYPE_CHECKING:
    from fmbench.config.config import Config


def validate(
    configfile: ConfigFiles,
    no_code: Annotated[
        bool, typer.Option("--no-code", help="import nothing that the config names; for a config that you do not trust")
    ] = False,
) -> None:
    """Check config files before any training: names, types, and that everything can be built and combined.

    A config is code: this command imports and runs the plug-ins that it names (as in `use: package.module:NAME`), and so do
    snakemake, doctor and plan. Look at a stranger's config with --no-code first; it lists the plug-ins. The last line starts
    with ok only if the whole check was done.
    """
    from fmbench.config.reading import load
    from fmbench.workflow.preflight import look, preflight

    config = load(*map(str, configfile))
    ok = "ok"
    if not no_code:
        preflight(config)
    elif unchecked := look(config):
        echo("\n".join(["not checked, because it is code that the config names:", *(f"  {line}" for line in unchecked)]))
        ok = "ok except for that code"
    methods = ", ".join(m.name for m in config.methods)
    echo(f"{ok}: {methods} on {', '.join(config.datasets)}, seeds {', '.join(map(str, config.seeds))}")


def spec(
    configfile: ConfigFiles,
    stage: Annotated[str, typer.Argument(help="check, theory, prepare, features, train, sample, ..., gather")],
    dataset: Annotated[str | None, typer.Argument(help="a data set; for gather: which file to gather")] = None,
    method: Annotated[str | None, typer.Argument(help="a method of the config")] = None,
    seed: Annotated[int, typer.Argument(help="a seed of the config")] = 0,
    results: Annotated[Path | None, typer.Option(help="take the config from this results folder or archive")] = None,
) -> None:
    """Print the spec of a job, to run its stage by hand."""
    from fmbench.config.hashing import canonical
    from fmbench.config.reading import load

    if results is None:
        config = load(*map(str, configfile))
    else:
        from fmbench.store.benchmark import config_of
        from fmbench.store.unpack import opened

        with opened(results) as folder:
            config = config_of(folder)
    echo(canonical(_build_spec(config, stage.replace("-", "_"), dataset, method, seed)))


def _build_spec(config: "Config", stage: str, dataset: str | None, method: str | None, seed: int) -> Any:
    from fmbench.config import specs
    from fmbench.config.written_out import written_out

    of_config: dict[str, Callable[..., Any]] = {
        "check": specs.check,
        "theory": specs.theory,
        "benchmark": written_out,
        "collect": specs.collect,
        "table1": specs.table1,
        "table4": specs.table4,
    }
    of_dataset: dict[str, Callable[..., Any]] = {
        "prepare": specs.prepare,
        "features": specs.features,
        "baselines": specs.baselines,
    }
    known = (*of_config, "prepare", "train", *STAGES, "gather")
    if stage not in known:
        raise ConfigError(f"unknown stage {stage!r}; known: {', '.join(known)}")
    if stage in of_config:
        return of_config[stage](config)
    if stage == "gather":
        if dataset not in GATHERED:
            raise ConfigError(f"stage 'gather' needs what to gather in place of a data set: {', '.join(GATHERED)}")
        return specs.gather(dataset, config)
    if dataset is None:
        raise ConfigError(f"stage {stage!r} needs a data set; this config has {', '.join(config.datasets)}")
    if stage in of_dataset:
        return of_dataset[stage](config, dataset)
    if method is None:
        raise ConfigError(f"stage {stage!r} needs a method; this config has {', '.join(m.name for m in config.methods)}")
    if stage == "train":
        return specs.train(config, dataset, method, seed)
    return specs.evaluate(stage, config, dataset, method, seed)


def schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="print a page with a table of all keys: config/README.md")] = False,
) -> None:
    """Print the JSON schema of the config. Editors read it from workflow/schemas/config.schema.json."""
    from fmbench.config.config import Config
    from fmbench.config.key_page import key_page

    values = Config.model_json_schema()
    if markdown:
        echo(key_page(values).rstrip())
        return
    echo(json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **values}, indent=2, sort_keys=True))


def doctor(
    configfile: ConfigFiles,
    presets: Annotated[Path, typer.Option(help="folder of presets; each is merged into the config and checked too")] = Path(
        "configs"
    ),
) -> None:
    """List what this machine has and lacks: in full for the config, in short for every preset.

    The exit code is 3 if the config cannot run here.
    """
    from fmbench.config.reading import load
    from fmbench.stages import doctor

    findings = [*doctor.machine(), *doctor.check(load(*map(str, configfile)))]
    echo(doctor.text(findings, " + ".join(map(str, configfile))))
    others = sorted(presets.glob("*.yaml")) if presets.is_dir() else []
    for preset in others:
        if preset in configfile:
            continue
        try:
            found = [f for f in doctor.check(load(*map(str, configfile), str(preset))) if f.level != doctor.OK]
        except ConfigError as error:
            echo(f"{preset}: {error}")
            continue
        verdict = "cannot run here" if any(f.level == doctor.LACKING for f in found) else "can run here"
        echo(doctor.text(found, f"{preset}: {verdict}"))
    if any(f.level == doctor.LACKING for f in findings):
        raise typer.Exit(3)


def plan(
    configfile: ConfigFiles,
    gpu: Annotated[list[str] | None, typer.Option(help="a GPU to estimate hours for; repeatable")] = None,
    probe: Annotated[
        float, typer.Option(help="seconds to measure this machine's speed for, per data set; 0 to skip it", min=0)
    ] = 5.0,
    threads: Threads = 1,
    out: Annotated[Path | None, typer.Option(help="file for the numbers; by default plan.json in the results folder")] = None,
) -> None:
    """Print what a config costs before anything runs: operations, memory, disk, hours."""
    from fmbench.config.reading import load
    from fmbench.stages.plan.estimate import run
    from fmbench.stages.plan.text import text
    from fmbench.store.files import write_json
    from fmbench.system.heap import keep_freed_memory

    config = load(*map(str, configfile))
    keep_freed_memory()  # as in the jobs
    results = Path(config.results_dir)
    plans = run(config, gpu or ["h100"], results, probe, threads)
    path = out or results / "plan.json"
    write_json(path, plans)
    echo(text(plans))
    echo(f"-> {path}")


def prune(
    results: ResultsFolder = Path("results"),
    yes: Annotated[bool, typer.Option("--yes", help="remove them; without this option they are only listed")] = False,
    everything: Annotated[
        bool,
        typer.Option("--all", help="also remove those of finished models and of trainings that could continue, unless in use"),
    ] = False,
) -> None:
    """List the checkpoints of a results folder. With --yes, remove those that no model in it was trained from.

    --yes also removes files that a killed process wrote only in part. --all also removes the checkpoints of finished models, and
    unfinished preparations of data. Files that fmbench did not write, and files behind a link, stay.
    """
    from fmbench.stages.prune import choose, find, half_written, remove, size_of, text

    found, halves = find(results), half_written(results)
    chosen = choose(found, everything)
    if found:
        echo(text(found, chosen))
    for path in halves:
        echo(f"remove {size_of(path) / 2**20:9.1f} MiB  {path}  half written")
    size = f"{sum(one.size for one in chosen) / 2**20:.1f} MiB"
    if not yes:
        echo(f"{len(chosen)} of {len(found)} entries, {size}, can go; nothing was removed, --yes removes them")
        return
    for path in halves:
        shutil.rmtree(path, ignore_errors=True)
    freed, staying = remove(chosen)
    for path in staying:
        echo(f"{path} stays: a process uses it, or it has files that fmbench did not write or may not remove")
    echo(f"{freed / 2**20:.1f} MiB of {size} removed")


RUN = (validate, doctor, plan)
ADMIN = (prune, spec, schema)
