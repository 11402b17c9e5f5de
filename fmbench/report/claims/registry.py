"""The paper's claims, each in a module of its own."""

from fmbench.report.claims import (
    claim01_lowest_nll_fid_nfe,
    claim02_fewer_evaluations,
    claim03_best_at_every_nfe,
    claim04_fid_falls_faster,
    claim05_constant_nfe,
    claim06_stable_training,
    claim07_structure_earlier,
    claim08_constant_direction,
    claim09_probability_flow,
    claim10_nll_falls_with_k,
    claim11_super_resolution,
)

CLAIMS = (
    claim01_lowest_nll_fid_nfe.CLAIM,
    claim02_fewer_evaluations.CLAIM,
    claim03_best_at_every_nfe.CLAIM,
    claim04_fid_falls_faster.CLAIM,
    claim05_constant_nfe.CLAIM,
    claim06_stable_training.CLAIM,
    claim07_structure_earlier.CLAIM,
    claim08_constant_direction.CLAIM,
    claim09_probability_flow.CLAIM,
    claim10_nll_falls_with_k.CLAIM,
    claim11_super_resolution.CLAIM,
)
