"""InceptionV3's features, ours against pytorch-fid's network as it is, eager and with the channels first.

Random weights (the time does not depend on them), float32, one thread, images of 32 x 32 resized to 299 by both.
"""

from functools import partial
from typing import Any

import pytorch_fid.inception
import torch
from _timing import arguments, in_turn, machine, show, write
from torch import Tensor, nn

from fmbench.metrics.inception import FastInception, build


def random_network(seed: int = 0) -> nn.Module:
    """A network whose activations neither die nor grow: He's weights, batch norms near the identity."""
    network, g = build(), torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=g)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.8, 1.2, generator=g)
            nn.init.normal_(module.bias, 0, 0.1, generator=g)
            module.running_mean.normal_(0, 0.1, generator=g)
            module.running_var.uniform_(0.8, 1.2, generator=g)
    return network


def theirs(network: nn.Module) -> nn.Module:
    """pytorch-fid's module around the same weights; its download is replaced, so that none can happen."""
    original = pytorch_fid.inception.load_state_dict_from_url
    pytorch_fid.inception.load_state_dict_from_url = lambda *_, **__: network.state_dict()
    try:
        return pytorch_fid.inception.InceptionV3().eval()
    finally:
        pytorch_fid.inception.load_state_dict_from_url = original


def main() -> None:
    options = arguments(__doc__)
    before = machine()
    network = random_network()
    eager = theirs(network)
    fast = FastInception(network)

    def reference(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return eager(images.float().div(255))[0].flatten(1)

    rows: list[dict[str, Any]] = []
    for batch in (4, 16, 50):
        images = torch.randint(0, 256, (batch, 3, 32, 32), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
        ours, expected = fast(images), reference(images)
        row = {"batch": batch, "difference": float((ours - expected).norm() / expected.norm())}
        row |= in_turn(partial(fast, images), partial(reference, images), options.rounds)
        rows.append({**row, "images_per_second": 1e3 * batch / row["ours_ms"]})
    columns = ["batch", "difference", "ours_ms", "theirs_ms", "ratio", "ratio_low", "ratio_high", "images_per_second"]
    show(rows, columns)
    write(options.out, before, {"features": rows})


if __name__ == "__main__":
    main()
