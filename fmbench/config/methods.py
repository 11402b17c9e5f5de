"""A method = path + prediction + weighting + times + coupling. The five of the paper's Table 1 are the first five entries here.

| method           | path | network predicts | loss per sample                       | paper          |
|------------------|------|------------------|---------------------------------------|----------------|
| `ddpm`           | VP   | epsilon = x0     | |eps - x0|^2                          | eq. 45         |
| `score_matching` | VP   | score            | sigma_t^2 |score + x0/sigma_t|^2      | eq. 43         |
| `scoreflow`      | VP   | score            | beta(1 - t) |score + x0/sigma_t|^2    | eq. 43         |
| `fm_diffusion`   | VP   | velocity         | |u - u_t(x_t given x1)|^2             | eq. 9, eq. 19  |
| `fm_ot`          | OT   | velocity         | |u - (x1 - (1 - sigma_min) x0)|^2     | eq. 23         |

In `score_matching` the network predicts the score itself. With -eps/sigma_t from an epsilon network instead, it would be `ddpm`
exactly.

Later methods are made of the same parts:

| method           | path      | network predicts | weight and times                   | source                                  |
|------------------|-----------|------------------|------------------------------------|-----------------------------------------|
| `edm`            | VE        | EDM's F          | 1; log(sigma) ~ N(-1.2, 1.2^2)     | Karras et al. 2022, Table 1             |
| `v_cosine`       | cosine VP | v                | 1; uniform                         | Salimans & Ho 2022                      |
| `sd3`            | OT        | velocity         | 1; logit-normal(0, 1)              | Esser et al. 2024, rf/lognorm(0, 1)     |
| `x_velocity`     | OT        | x                | velocity; logit-normal(-0.8, 0.8)  | Li & He 2025, x-prediction with v-loss  |

`ot_cfm` is `fm_ot` with the coupling `minibatch_ot` (:mod:`fmbench.flow.couplings`): within each batch it pairs noise and data by
optimal transport. The "OT" of `fm_ot` is the paper's conditional OT path, whose noise and data are independent.

`mean_flow` learns the mean velocity between two times (:mod:`fmbench.flow.mean_velocity`), with the settings of its paper for
CIFAR-10. Its field at equal times is an ordinary velocity.

`rectified_flow_2` is `fm_ot` once more, trained on pairs of noise and the sample that a trained `fm_ot` makes of it (reflow; Liu
et al. 2022).

`oracle_ot` and `oracle_vp` are not trained. Their field is the closed-form field of the training set
(:mod:`fmbench.flow.oracle`), so their rows show the properties of the path alone, without learning error.

`regression` has no path: the network predicts the sample from its condition by one evaluation (:mod:`fmbench.flow.regression`).

This module is data and imports nothing heavy; :mod:`fmbench.flow.objectives` turns it into losses.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Part:
    """One ingredient by name, with its parameters."""

    name: str
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """A training objective and the sampling field that belongs to it.

    Attributes:
        path: a name of :data:`fmbench.flow.paths.PATHS`, or a dotted name; None for regression, which has no path.
        prediction: a name of :data:`fmbench.flow.prediction.PREDICTIONS`, or a dotted name.
        weighting: a name of :data:`fmbench.flow.weighting.WEIGHTINGS`.
        time: a name of :data:`fmbench.flow.training_times.TIME_DISTRIBUTIONS`.
        t_min, t_max: the interval of time; None for the widest that path and prediction allow.
        oracle: the settings of the closed-form field (:data:`ORACLE`); None for a network.
        source: a name of :data:`fmbench.flow.starts.STARTS` for paths that start at the condition; None for noise.
        coupling: a name of :data:`fmbench.flow.couplings.COUPLINGS`, or a dotted name; None for independent noise and data.
        target: ``marginal`` for the mean of the target given x_t (:mod:`fmbench.flow.marginal`); None for
            the target of each pair.
        jumps: a name of :data:`fmbench.flow.mean_velocity.JUMPS` if the network also learns to jump; None for a velocity alone.
        teacher: the method whose samples, with the noise they were made of, are the pairs to train on (reflow), with the settings
            of :data:`TEACHER`; None for pairs of noise and training data.
    """

    name: str
    path: Part | None
    prediction: Part
    weighting: Part = Part("uniform")
    time: Part = Part("uniform")
    t_min: float | None = None
    t_max: float | None = None
    oracle: dict[str, Any] | None = None
    source: Part | None = None
    coupling: Part | None = None
    target: Part | None = None
    jumps: Part | None = None
    teacher: Part | None = None

    @property
    def passes(self) -> int:
        """What one sample of a training step costs, in forward passes of the network; a backward pass counts as two.

        The loss of jumps has the derivative of the network, which costs two more.
        """
        return 3 if self.jumps is None else 5


PARTS = ("path", "prediction", "weighting", "time")
"""The parts that every method has; only regression has no path."""
MORE_PARTS = {"source": "noise", "coupling": "independent", "target": "conditional", "jumps": "none", "teacher": "none"}
"""The parts that a method may have, and what it has without them. Specs leave out what is not set, so that the other methods keep
their hash."""

ORACLE: dict[str, Any] = {"points": 2000, "bandwidth": None}
"""The settings of an oracle. ``points`` of the training set are drawn at random; each is smoothed by a Gaussian of standard
deviation ``bandwidth`` in model units. A bandwidth of None is, for images, the standard deviation of a uniform variable within
one level, which is what dequantisation adds, and for points the bandwidth with the largest leave-one-out likelihood."""

TEACHER: dict[str, Any] = {"pairs": 20_000, "batch": 1000, "rtol": 1e-5, "atol": 1e-5}
"""The number of pairs that a teacher makes, and the batch and tolerances of its adaptive solver."""

STRAIGHT = Part("ot", {"sigma_min": 0.0})
"""The straight path of rectified flow, which ends at the data themselves."""

JUMPS = Part("mean_velocity", {"share": 0.75, "power": 0.75, "offset": 1e-3})
"""MeanFlow's settings for CIFAR-10."""

METHODS: dict[str, Method] = {
    m.name: m
    for m in (
        Method("ddpm", Part("vp"), Part("epsilon")),
        Method("score_matching", Part("vp"), Part("score"), weighting=Part("sigma_squared")),
        Method("scoreflow", Part("vp"), Part("score"), weighting=Part("likelihood")),
        Method("fm_diffusion", Part("vp"), Part("velocity")),
        Method("fm_ot", Part("ot"), Part("velocity")),
        Method("regression", None, Part("x")),
        Method("oracle_ot", Part("ot"), Part("velocity"), oracle=dict(ORACLE)),
        Method("oracle_vp", Part("vp"), Part("velocity"), oracle=dict(ORACLE)),
        Method("edm", Part("ve", {"sigma_min": 0.002, "sigma_max": 80.0}), Part("edm"), time=Part("log_normal")),
        Method("v_cosine", Part("cosine_vp"), Part("v")),
        Method("sd3", STRAIGHT, Part("velocity"), time=Part("logit_normal")),
        Method("x_velocity", STRAIGHT, Part("x"), Part("velocity"), Part("logit_normal", {"mean": -0.8, "std": 0.8})),
        Method("mean_flow", STRAIGHT, Part("velocity"), time=Part("logit_normal", {"mean": 2.0, "std": 2.0}), jumps=JUMPS),
        Method("rectified_flow_2", Part("ot"), Part("velocity"), teacher=Part("fm_ot", dict(TEACHER))),
        Method("ot_cfm", Part("ot"), Part("velocity"), coupling=Part("minibatch_ot")),
    )
}

ORACLES: tuple[str, ...] = tuple(name for name, method in METHODS.items() if method.oracle is not None)
