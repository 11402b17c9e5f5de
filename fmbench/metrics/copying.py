"""The rule by which a model copies its training set, from the numbers of :mod:`fmbench.metrics.memorisation`."""

C_T_BELOW, RATIO_BELOW = -3.0, 0.5
"""A model copies if its C_T and the ratio of its distances are below these values. A model that draws fresh data has a C_T below
-3 with a probability of 0.13 %, whatever its ratio."""
COPIES = "copies its training set"
NEARER = "is nearer to its training set than fresh data"


def verdict(c_t: float, train_distance_ratio: float) -> str:
    """:data:`COPIES`, :data:`NEARER` where the samples are nearer but not at half the distance, or an empty text."""
    if not c_t < C_T_BELOW:
        return ""
    return COPIES if train_distance_ratio < RATIO_BELOW else NEARER
