"""Divergences: exact by a loop or all together, Hutchinson's probes sharing a forward pass or not, reverse or forward mode.

Float32, one thread. Peak memory is taken in a process of its own for each mode.
"""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _timing import arguments, in_turn, machine, show, write
from torch import Tensor, nn

from fmbench.flow.divergence import exact_divergence, hutchinson_divergence
from fmbench.flow.fields import Field
from fmbench.networks import build_network

DIGITS = (1, 8, 8)
COLUMNS = ["ours", "theirs", "field", "batch", "ours_ms", "theirs_ms", "ratio", "ratio_low", "ratio_high"]


def field_of(kind: str, shape: tuple[int, ...], **parameters: Any) -> Field:
    torch.manual_seed(0)
    network = build_network(kind, shape, parameters)
    for parameter in network.parameters():
        if not parameter.any():  # layers that start at zero would make the divergence zero
            nn.init.normal_(parameter, std=0.05)
        parameter.requires_grad_(False)
    return lambda t, x: network(t.to(x.dtype).expand(x.shape[0]), x)


def mlp(dimensions: int) -> Field:
    """The default configuration's network for points."""
    return field_of("mlp", (dimensions,), width=192, depth=5)


def unet() -> Field:
    """The default configuration's network for digits."""
    return field_of(
        "unet", DIGITS, channels=16, channels_multiple=[1, 2], depth=1, attention_resolutions=[], resample_blocks=False
    )


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


T = torch.tensor(0.4, dtype=torch.float64)


def agree(first: Tensor, second: Tensor) -> None:
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-3)


def loop_against_vmap(rounds: int) -> list[dict[str, Any]]:
    cases = [(f"MLP 5x192, D = {d}", mlp(d), (d,), b) for b in (16, 64, 256) for d in (2, 4, 8, 16, 32)]
    cases += [("U-Net, D = 64", unet(), DIGITS, batch) for batch in (4, 32)]
    rows = []
    for name, field, shape, batch in cases:
        x = draw(batch, *shape)
        loop, vmap = (partial(exact_divergence, field, T, x, mode) for mode in ("loop", "vmap"))
        agree(loop()[1], vmap()[1])
        row = {"ours": "vmap", "theirs": "loop", "field": name, "batch": batch, **in_turn(vmap, loop, rounds)}
        rows.append(row)
    return rows


def shared_against_separate(rounds: int) -> list[dict[str, Any]]:
    rows = []
    for name, field, shape, batch in (("MLP 5x192, D = 2", mlp(2), (2,), 256), ("U-Net, D = 64", unet(), DIGITS, 64)):
        x = draw(batch, *shape)
        probes = draw(4, batch, *shape).sign()
        together = partial(hutchinson_divergence, field, T, x, probes)

        def apart(field: Field = field, x: Tensor = x, probes: Tensor = probes) -> Tensor:
            return torch.cat([hutchinson_divergence(field, T, x, z[None])[1] for z in probes])

        agree(together()[1], apart())
        row = {"ours": "4 probes, one forward pass", "theirs": "4 calls", "field": name, "batch": batch}
        rows.append({**row, **in_turn(together, apart, rounds)})
    return rows


def reverse_against_forward(rounds: int) -> list[dict[str, Any]]:
    rows = []
    for probes in (1, 4):
        for batch in (64, 360):
            row: dict[str, Any] = {
                "ours": f"reverse, {probes} probes",
                "theirs": "forward",
                "field": "U-Net, D = 64",
                "batch": batch,
            }
            x, z = draw(batch, *DIGITS), draw(probes, batch, *DIGITS).sign()
            reverse, forward = (partial(hutchinson_divergence, unet(), T, x, z, mode) for mode in ("reverse", "forward"))
            agree(reverse()[1], forward()[1])
            row |= in_turn(reverse, forward, rounds)
            for mode, column in (("reverse", "ours_mb"), ("forward", "theirs_mb")):
                command = [sys.executable, __file__, "--peak", mode, str(probes), str(batch)]
                row[column] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            rows.append({**row, "memory_ratio": row["theirs_mb"] / row["ours_mb"]})
    return rows


def resident(name: str) -> float:
    """VmRSS or VmHWM of this process in megabytes. (getrusage's maximum would start from that of the process that started it.)"""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {name} in /proc/self/status")


def peak(mode: str, probes: int, batch: int) -> float:
    """Megabytes by which the largest resident memory of this process exceeds what it has before a divergence. Linux only."""
    torch.set_num_threads(1)
    field, x, z = unet(), draw(batch, *DIGITS), draw(probes, batch, *DIGITS).sign()
    hutchinson_divergence(field, T, x[:1], z[:, :1], mode)  # loads what the mode needs
    before = resident("VmRSS")
    hutchinson_divergence(field, T, x, z, mode)
    return resident("VmHWM") - before


def main() -> None:
    options = arguments(__doc__)
    before = machine()
    tables = {"exact": loop_against_vmap(options.rounds), "probes": shared_against_separate(options.rounds)}
    tables["modes"] = reverse_against_forward(options.rounds)
    for name, rows in tables.items():
        print(f"\n{name}\n")
        show(rows, COLUMNS + (["ours_mb", "theirs_mb", "memory_ratio"] if name == "modes" else []))
    write(options.out, before, tables)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        print(json.dumps(peak(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
    else:
        main()
