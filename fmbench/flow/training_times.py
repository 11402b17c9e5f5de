"""The distributions of training times, by the names a config uses."""

import torch
from torch import Tensor

from fmbench.flow.paths import AffinePath


class TimeDistribution:
    """A density on [t_min, t_max], drawn by its inverse distribution function.

    Args:
        corrected: divide the loss by the density relative to the uniform one. The distribution then changes the variance of the
            estimated loss but not its expectation.

    Raises:
        ValueError: ``corrected`` is not true or false.
    """

    def __init__(self, corrected: bool = False) -> None:
        if not isinstance(corrected, bool):
            raise ValueError(f"corrected must be true or false, without quotes, not {corrected!r}")
        self.corrected = corrected

    def draw(self, u: Tensor, path: AffinePath, t_min: float, t_max: float) -> tuple[Tensor, Tensor]:
        """Times and their density relative to the uniform one, both float64 of shape (B,), from uniforms u (B,)."""
        raise NotImplementedError


class UniformTime(TimeDistribution):
    """t uniform on the interval, as the paper has it for all five methods."""

    def draw(self, u: Tensor, path: AffinePath, t_min: float, t_max: float) -> tuple[Tensor, Tensor]:
        t = t_min + (t_max - t_min) * u.double()
        return t, torch.ones_like(t)


class LogSNRTime(TimeDistribution):
    """t such that log SNR is uniform between its values at the ends.

    On the VP path the density is proportional to beta(1 - t) / sigma_t^2 and the inverse is closed-form: with
    ``corrected: true`` this is ScoreFlow's importance sampler (Song et al. 2021, appendix A.3), which leaves the
    likelihood-weighted loss with a constant weight on the error of the noise.
    """

    def draw(self, u: Tensor, path: AffinePath, t_min: float, t_max: float) -> tuple[Tensor, Tensor]:
        # Filled on the device of u: each step would wait for a copy to it.
        ends = path.log_snr(torch.cat([u.new_full((1,), t, dtype=torch.float64) for t in (t_min, t_max)]))
        low, high = ends[0], ends[1]
        t = path.time_of_log_snr(low + (high - low) * u.double()).clamp(t_min, t_max)
        return t, path.log_snr_rate(t) * (t_max - t_min) / (high - low)


class LogitNormalTime(TimeDistribution):
    """logit of (t - t_min) / (t_max - t_min) normal with ``mean`` and ``std`` (Esser et al. 2024, eq. 19).

    Their time runs from data to noise, so their m is minus this mean: a positive mean here favours times near the data.

    Raises:
        ValueError: ``std`` is not positive, or ``corrected`` is not true or false.
    """

    def __init__(self, mean: float = 0.0, std: float = 1.0, corrected: bool = False) -> None:
        super().__init__(corrected)
        if std <= 0:
            raise ValueError(f"std must be positive, not {std}")
        self.mean, self.std = mean, std

    def draw(self, u: Tensor, path: AffinePath, t_min: float, t_max: float) -> tuple[Tensor, Tensor]:
        # u = 0 would give t = t_min, where the density is 0.
        z = torch.special.ndtri(u.double().clamp(1e-9, 1 - 1e-9))
        logit = self.mean + self.std * z
        fraction = torch.sigmoid(logit)
        normal = torch.exp(-(z**2) / 2) / (self.std * (2 * torch.pi) ** 0.5)
        return t_min + (t_max - t_min) * fraction, normal / (fraction * (1 - fraction))


class LogNormalTime(TimeDistribution):
    """The noise level sigma = s / a log-normal (Karras et al. 2022, Table 1: log(sigma) ~ N(-1.2, 1.2^2)).

    The distribution is cut to the levels of the interval. Of theirs, the levels 0.002 to 80 leave out 1.6e-5.

    Args:
        mean, std: of log(sigma).

    Raises:
        ValueError: ``std`` is not positive, or ``corrected`` is not true or false.
    """

    def __init__(self, mean: float = -1.2, std: float = 1.2, corrected: bool = False) -> None:
        super().__init__(corrected)
        if std <= 0:
            raise ValueError(f"std must be positive, not {std}")
        self.mean, self.std = mean, std

    def draw(self, u: Tensor, path: AffinePath, t_min: float, t_max: float) -> tuple[Tensor, Tensor]:
        # log SNR = -2 log(sigma) increases with t, so it takes the place of log(sigma).
        mean, std = -2 * self.mean, 2 * self.std
        ends = path.log_snr(torch.cat([u.new_full((1,), t, dtype=torch.float64) for t in (t_min, t_max)]))
        low, high = torch.special.ndtr((ends - mean) / std)
        # An end where sigma is infinite or zero is out of reach: the density is 0 there.
        z = torch.special.ndtri((low + (high - low) * u.double()).clamp(1e-9, 1 - 1e-9))
        t = path.time_of_log_snr(mean + std * z).clamp(t_min, t_max)
        normal = torch.exp(-(z**2) / 2) / (std * (2 * torch.pi) ** 0.5)
        return t, normal * path.log_snr_rate(t) * (t_max - t_min) / (high - low)


TIME_DISTRIBUTIONS: dict[str, type[TimeDistribution]] = {
    "uniform": UniformTime,
    "log_snr": LogSNRTime,
    "logit_normal": LogitNormalTime,
    "log_normal": LogNormalTime,
}
