"""All figures by name: the paper's number, or what they show."""

from functools import partial

from fmbench.report.figures.cost import cost, cost_data
from fmbench.report.figures.densities import densities
from fmbench.report.figures.equivalence import equivalence
from fmbench.report.figures.fig02_08_fields import fields, fields_data
from fmbench.report.figures.fig03_trajectories import trajectories
from fmbench.report.figures.fig04_06_09_along_t import along_t, fig06, states_data
from fmbench.report.figures.fig04_11_samples import fig04, fig04_data, fig11, fig11_data
from fmbench.report.figures.fig04_16_few_step import few_step_data, fig04_few_step, fig16
from fmbench.report.figures.fig05_10_learning_curves import learning_curve, over_iterations
from fmbench.report.figures.fig07_error import fig07, fig07_data
from fmbench.report.figures.fig07_quality import fig07_quality, fig07_quality_data
from fmbench.report.figures.fig14_15_super_resolution import ZOOMED, fig14, fig15, upsampled_data
from fmbench.report.figures.forest import forest, forest_data
from fmbench.report.figures.grid3x3 import grid3x3, grid3x3_data
from fmbench.report.figures.nfe_distribution import nfe_distribution, nfe_distribution_data
from fmbench.report.figures.noise_levels import noise_levels
from fmbench.report.figures.panels import Drawing
from fmbench.report.figures.pareto import pareto, pareto_data
from fmbench.report.figures.preview_rows import is_image, is_point
from fmbench.report.figures.samplers import samplers
from fmbench.report.figures.solver_budget import solver_budget, solver_budget_data
from fmbench.report.figures.theory import theory_frame
from fmbench.report.figures.work_precision import work_precision, work_precision_data

PAPERS_THREE = ("score_matching", "fm_diffusion", "fm_ot")
"""The methods of the paper's figures 4 and 6."""

FIGURES: dict[str, Drawing] = {
    "claims": Drawing(forest_data, forest),
    "fig02": Drawing(partial(fields_data, figure="fig02"), fields),
    "fig03": Drawing(partial(theory_frame, name="trajectories"), trajectories),
    "fig04": Drawing(fig04_data, fig04),
    "fig04_densities": Drawing(partial(states_data, kind=is_point), along_t, PAPERS_THREE),
    "fig04_few_step": Drawing(partial(few_step_data, kind=is_point), fig04_few_step),
    "fig05": Drawing(learning_curve, over_iterations),
    "fig06": Drawing(partial(states_data, kind=is_image), fig06, PAPERS_THREE),
    "fig07": Drawing(fig07_data, fig07),
    "fig07_quality": Drawing(fig07_quality_data, fig07_quality),
    "fig08": Drawing(partial(fields_data, figure="fig08"), fields),
    "fig09": Drawing(partial(states_data, kind=is_point), along_t, ("scoreflow", "ddpm")),
    "fig10": Drawing(partial(learning_curve, metrics=("nfe",)), partial(over_iterations, name="NFE (dopri5)")),
    "fig11": Drawing(fig11_data, fig11),
    "fig14": Drawing(upsampled_data, fig14),
    "fig15": Drawing(partial(upsampled_data, images=ZOOMED), fig15),
    "fig16": Drawing(partial(few_step_data, kind=is_image), fig16),
    "cost": Drawing(cost_data, cost),
    "densities": Drawing(partial(theory_frame, name="densities"), densities),
    "equivalence": Drawing(partial(theory_frame, name="equivalence"), equivalence),
    "grid3x3": Drawing(grid3x3_data, grid3x3),
    "nfe_distribution": Drawing(nfe_distribution_data, nfe_distribution),
    "noise_levels": Drawing(partial(theory_frame, name="noise_levels", may_be_empty=True), noise_levels),
    "pareto": Drawing(pareto_data, pareto),
    "solver_budget": Drawing(solver_budget_data, solver_budget),
    "samplers": Drawing(partial(theory_frame, name="samplers"), samplers),
    "work_precision": Drawing(work_precision_data, work_precision),
}
