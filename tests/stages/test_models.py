"""What identifies a model in the keys of caches: its data, its code, its plug-ins, and the machine."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from sealed_files import change_document, content_of
from tiny_benchmark import CPU
from user_code import command

from fmbench.config.hashing import canonical, settings_hash
from fmbench.stages.shared.job import Job
from fmbench.stages.shared.models import cache_key
from fmbench.store.files import sha256
from fmbench.system.progress import Console

QUIET = Console("test", "none")


def test_the_cache_key_has_the_machine_and_the_versions(healthy, monkeypatch):
    model, spec = healthy.model("board", "fm_ot"), healthy.spec("sweep", "board", "fm_ot")
    job = Job(spec, QUIET, CPU, "c0de")
    keys = [cache_key(model, job)]
    assert cache_key(model, Job(spec, QUIET, CPU, "c0de")) == keys[0]
    keys += [cache_key(replace(model, **{name: "another"}), job) for name in ("sha256", "code", "data")]
    keys += [cache_key(model, Job(spec, QUIET, CPU, "another")), cache_key(model, Job(spec | {"seed": 4}, QUIET, CPU, "c0de"))]
    with monkeypatch.context() as patch:
        patch.setattr("fmbench.stages.shared.models.torch.get_num_threads", lambda: 77)
        keys.append(cache_key(model, job))
    with monkeypatch.context() as patch:
        patch.setattr("fmbench.stages.shared.models.versions", lambda: "another")
        keys.append(cache_key(model, job))
    job.device_name = "another"
    keys.append(cache_key(model, job))
    assert len({settings_hash(key) for key in keys}) == len(keys) == 9


def test_a_cached_draw_depends_on_the_data_and_the_code(bench, tmp_path, monkeypatch):
    """Also without a hash of the plug-ins on the command line: test images prepared again, and an edited network."""
    for name in ("data", "models"):
        shutil.copytree(bench.results / name, tmp_path / name)
    spec = bench.spec("dequantisation", "tall", "fm_ot")
    spec["settings"] |= {"draws": [1]}
    data, model = tmp_path / "data" / "tall", tmp_path / bench.folder("train", "tall", "fm_ot").relative_to(bench.results)
    folders = ["--data", data, "--model", model, "--out", tmp_path / "out", "--cache", tmp_path / "cache"]

    def said() -> str:
        return command("dequantisation", "--spec", canonical(spec), "--progress", "lines", *folders).err

    assert "1 solves and 0 from the cache" in said() and "0 solves and 1 from the cache" in said()
    splits = content_of(data / "manifest.json")["splits"]
    np.save(data / "test.npy", np.load(data / "test.npy")[::-1])
    splits["test"]["sha256"] = sha256(data / "test.npy")
    change_document(data / "manifest.json", splits=splits)
    assert "1 solves and 0 from the cache" in said()
    monkeypatch.setattr("fmbench.stages.shared.models.plugin_code", lambda spec: "edited")
    assert "1 solves and 0 from the cache" in said()


def test_the_plug_in_code_of_a_model_is_hashed(tmp_path):
    module = tmp_path / "module_of_plug_ins.py"

    def found(text: str, kind: str = "module_of_plug_ins:A") -> str:
        module.write_text(text)
        code = f"from fmbench.store.codehash import plugin_code\nprint(plugin_code({{'network': {{'kind': {kind!r}}}}}))"
        environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parent.parent.parent}"}
        return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout

    before = found("A = 1\n")
    assert before.strip() and found("A = 1  # as before\n") == before != found("A = 2\n")
    assert found("A = 1\n", "unet") == "\n"
