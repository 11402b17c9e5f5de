"""The cost of a feature extractor for one image, counted on tensors without storage where its weights need not be read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fmbench.config.feature_settings import ExtractorSettings, FeatureSettings
from fmbench.metrics.extractor_weights import ENCODERS, problem
from fmbench.metrics.extractors import make_extractor
from fmbench.networks.counting import LiveBytes, count, fused_attention
from fmbench.stages.shared.classifier import BATCH, FEATURES, Classifier


@dataclass(frozen=True)
class ExtractorCost:
    """The cost of a feature extractor for one image, in float32.

    Attributes:
        features: the numbers that it makes of an image.
        flops: operations on an image.
        peak: the most bytes alive at once, without the weights.
        weights: bytes of the weights; 0 for an EfficientNet, whose weights take 20 MB.
        batch: images at a time.
        kept: bytes that autograd keeps in the training of the classifier; 0 for the others.
    """

    features: int
    flops: int
    peak: int
    weights: int
    batch: int
    kept: int = 0


def extractor_cost(
    chosen: ExtractorSettings, settings: FeatureSettings, shape: tuple[int, ...], classes: int
) -> ExtractorCost | None:
    """The cost of an extractor on images of ``shape``; None where it is not known beforehand, as that of a plug-in."""
    if chosen.extractor == "classifier":
        cost = count(lambda: _Timeless(Classifier(shape, classes, settings.width)), shape)
        return ExtractorCost(FEATURES, cost.flops, cost.peak, 4 * cost.parameters, BATCH, cost.kept)
    if chosen.extractor == "inception":
        from fmbench.metrics import inception

        with torch.device("meta"):
            network = inception.build()
            return _counted(inception.FEATURES, network, torch.zeros(1, 3, inception.SIZE, inception.SIZE), network, settings)
    if chosen.extractor in ENCODERS:
        from fmbench.metrics.vision_transformer import CLIP, DINOV2, VisionTransformer

        encoder = CLIP if chosen.extractor == "clip_mmd" else DINOV2
        with torch.device("meta"):
            network = VisionTransformer(encoder)
            return _counted(encoder.features, network, torch.zeros(1, 3, encoder.size, encoder.size), network, settings)
    if chosen.extractor.startswith("efficientnet_lite") and not problem(chosen.extractor, chosen.options):
        extractor = make_extractor(chosen.extractor, "cpu", **chosen.options)
        image = torch.zeros(1, 3, *shape[1:], dtype=torch.uint8)
        return _counted(extractor.dimensions, extractor, image, nn.Identity(), settings)
    return None


class _Timeless(nn.Module):
    """A network of images, called with times as the networks of the methods are."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, t: Tensor, x: Tensor) -> Any:
        return self.network(x)


def _counted(
    features: int, call: Callable[[Tensor], Tensor], image: Tensor, network: nn.Module, settings: FeatureSettings
) -> ExtractorCost:
    """The cost of one call. ``network`` holds the weights that are known."""
    weights = [*network.parameters(), *network.buffers()]
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        call(image)
    with LiveBytes(weights) as live, torch.no_grad(), fused_attention():
        call(image)
    return ExtractorCost(
        features, int(counter.get_total_flops()), live.peak, sum(tensor.nbytes for tensor in weights), settings.batch
    )
