"""A config names code. Code that ends the program ends no check and no job with success, and --no-code imports none of it."""

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command_line import check_failed
from torch import nn
from user_code import Scale, command

from fmbench.config.hashing import canonical
from fmbench.config.method_settings import method_from_values
from fmbench.config.plugins import reason, resolve
from fmbench.config.reading import parse
from fmbench.config.specs import theory
from fmbench.flow.objectives import build
from fmbench.stages.shared.plugin_guard import PluginGuard

BOARD = {"data": {"source": "checkerboard", "parameters": {"train": 30, "test": 10}}, "network": {"kind": "mlp", "width": 4}}
UNET = {"kind": "unet", "channels": 4, "channels_multiple": [1], "depth": 1, "attention_resolutions": [], "head_channels": 4}
DIGITS = {"data": "digits", "network": UNET}
BASE: dict[str, Any] = {
    "seeds": [0],
    "datasets": ["board"],
    "methods": ["fm_ot", {"name": "mine", "path": "ot", "prediction": "v"}],
    "settings": {"board": BOARD, "digits": DIGITS},
}
PLACES: list[tuple[str, Any]] = [
    ("methods.1.path", "{}:PART"),
    ("methods.1.prediction", "{}:PART"),
    ("methods.1.weighting", "{}:PART"),
    ("methods.1.time", "{}:PART"),
    ("methods.1", {"name": "mine", "use": "{}:PART"}),
    ("settings.board.network", {"kind": "{}:PART"}),
    ("settings.board.data", {"source": "{}:PART"}),
    ("settings.digits.evaluation", {"features": {"more_extractors": ["{}:PART"]}}),
    ("settings.board.evaluation", {"sweep": {"solvers": [{"name": "own", "use": "{}:PART"}]}}),
]
"""Every place of a config that may name code."""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def with_code(place: str, value: Any, module: str) -> dict[str, Any]:
    """``BASE`` with a plug-in of this module in one place."""
    values = copy.deepcopy(BASE)
    if "digits" in place:  # a data set costs a second or two
        values["datasets"] = ["digits"]
    *way, last = [int(key) if key.isdigit() else key for key in place.split(".")]
    here: Any = values
    for key in way:
        here = here[key]
    here[last] = yaml.safe_load(yaml.safe_dump(value).replace("{}", module))
    return values


def write(folder: Path, module: str, code: str, values: dict[str, Any]) -> None:
    (folder / f"{module}.py").write_text(code)
    (folder / "config.yaml").write_text(yaml.safe_dump(values))


EXITS = {
    "at import": "import sys\nsys.exit(0)\n",
    "at the call": "import sys\n\n\ndef PART(*arguments, **parameters):\n    sys.exit(0)\n",
}


@pytest.mark.parametrize(("place", "value"), PLACES, ids=[place for place, _ in PLACES])
@pytest.mark.parametrize("when", EXITS)
def test_code_that_ends_the_program_does_not_pass_the_check(folder, place, value, when):
    uncalled = ("methods.1.prediction", "methods.1", "settings.board.data", "settings.board.evaluation")
    if when == "at the call" and place in uncalled:
        pytest.skip("the check does not call these")
    module = f"ending_{EXITS[when].count(chr(10))}_{place.replace('.', '_')}"
    write(folder, module, EXITS[when], with_code(place, value, module))
    said = command("validate")
    check_failed(said, 2, "it ended the program (SystemExit: 0); a plug-in must return or raise an Exception")
    assert said.out == "" and not (folder / "results" / "checked.json").exists()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("1 / 0\n", "cannot be imported: ZeroDivisionError: division by zero"),
        ("def f(:\n", "cannot be imported: invalid syntax"),
        ("raise KeyError('x')\n", "cannot be imported: KeyError: 'x'"),
        ("raise RuntimeError('two\\nlines')\n", "cannot be imported: two lines"),
        ("raise ValueError\n", "cannot be imported: ValueError"),
        ("class E(Exception):\n    def __str__(self):\n        raise OSError\n\n\nraise E\n", "cannot be imported: E"),
        ("raise GeneratorExit\n", "cannot be imported: GeneratorExit"),
        ("class E(BaseException):\n    pass\n\n\nraise E('odd')\n", "a plug-in or a library ended the command: E: odd"),
    ],
)
@pytest.mark.parametrize("place", ["methods.1", "methods.1.path"])
def test_code_that_raises_anything_at_its_import_is_named(folder, place, code, message):
    module = f"raising_{abs(hash(code + place))}"
    write(folder, module, code, with_code(place, dict(PLACES)[place], module))
    check_failed(command("validate"), 2, message)


def test_a_package_that_ends_the_program_does_not_end_the_check(folder):
    """Finding the file of a module imports the package around it."""
    (folder / "ending_package").mkdir()
    (folder / "ending_package" / "inner.py").write_text("PART = 1\n")
    write(
        folder, "ending_package/__init__", "raise SystemExit(0)\n", with_code("methods.1.path", "{}:PART", "ending_package.inner")
    )
    check_failed(
        command("validate"), 2, "methods.mine: path 'ending_package.inner:PART' cannot be imported: it ended the program"
    )


@pytest.mark.parametrize("module", [None, "found_module"])
def test_a_job_whose_code_ends_the_program_fails(folder, module):
    (folder / "found_module.py").write_text(EXITS["at the call"])
    source = f"{module or 'sys'}:{'PART' if module else 'exit'}"
    spec = {"stage": "prepare", "dataset": "b", "source": source, "parameters": {}}
    said = command("prepare", "--spec", canonical(spec), "--out", folder / "out", "--log", folder / "log")
    check_failed(said, 2, "a plug-in or a library ended the command: it ended the program (SystemExit: ")
    assert "ended the program" in (folder / "log").read_text() and not (folder / "out" / "manifest.json").exists()


def test_a_user_who_interrupts_still_can(folder):
    (folder / "waiting_module.py").write_text("def PART():\n    raise KeyboardInterrupt\n")
    spec = {"stage": "prepare", "dataset": "b", "source": "waiting_module:PART", "parameters": {}}
    assert command("prepare", "--spec", canonical(spec), "--out", folder / "out").code == 130
    (folder / "interrupted_module.py").write_text("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        resolve({}, "path", "interrupted_module:PART")


class Leaves(Scale):
    """A network that ends the program in its forward pass."""

    def forward(self, t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        sys.exit(0)


def test_a_network_that_ends_the_program_in_a_training_counts_as_diverged():
    values = theory(parse({"datasets": ["board"], "methods": ["fm_ot"], "settings": {"board": BOARD}}))["methods"][0]
    network: nn.Module = Leaves((2,))
    told: list[str] = []
    guard = PluginGuard(build(method_from_values(values)), network, {__file__}, told.append)
    loss = guard.loss(network, torch.zeros(3, 2), torch.ones(3, 2), torch.tensor([0.1, 0.5, 0.9]))
    assert torch.isnan(loss).all() and loss.shape == (3,)
    assert guard.raised.startswith("test_code_of_configs.py, line ") and guard.raised.endswith("raised SystemExit: 0")
    assert "sys.exit(0)" in told[0]


@pytest.mark.parametrize(("place", "value"), PLACES, ids=[place for place, _ in PLACES])
def test_no_code_imports_nothing_and_says_what_it_left_out(folder, place, value):
    module = f"telling_{place.replace('.', '_')}"
    code = "import pathlib\n\npathlib.Path('imported').write_text('')\n"
    write(folder, module, code, with_code(place, value, module))
    said = command("validate", "--no-code")
    where = "methods.mine" if place.startswith("methods") else ".".join(place.split(".")[:2])
    head, line, ok = said.out.splitlines()
    assert said.code == 0 and head == "not checked, because it is code that the config names:"
    assert line == f"  {where}: {module}:PART"
    assert ok == f"ok except for that code: fm_ot, mine on {'digits' if 'digits' in place else 'board'}, seeds 0"
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", f"{module}.py"] and module not in sys.modules
    command("validate")
    assert (folder / "imported").exists()  # or the test could not fail


def test_no_code_checks_the_rest(folder):
    values = with_code("methods.1.path", "{}:PART", "never_imported")
    values["settings"]["board"]["network"] = {"kind": "unet"}
    values["methods"].append({"name": "odd", "path": "ot", "prediction": "velocity", "weighting": "likelihood"})
    write(folder, "never_imported", "1 / 0\n", values)
    said = command("validate", "--no-code")
    check_failed(said, 2, "methods.odd: ", "settings.board.network: a U-Net works on images")
    assert "never_imported" not in said.err
    write(folder, "never_imported", "1 / 0\n", BASE)
    assert command("validate", "--no-code").out == "ok: fm_ot, mine on board, seeds 0\n"


def test_the_reason_of_an_exception_is_one_line_with_its_type_where_that_is_needed():
    assert reason(ValueError("a\n  b")) == "a b"
    assert reason(IndexError("0")) == "IndexError: 0"
    assert reason(AssertionError()) == "AssertionError"
    assert reason(SystemExit("bye")) == "it ended the program (SystemExit: bye); a plug-in must return or raise an Exception"
