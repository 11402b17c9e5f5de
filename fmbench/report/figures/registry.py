"""All figures by name: the paper's number, or what they show."""

from fmbench.report.figures.cost import cost, cost_data
from fmbench.report.figures.densities import densities, densities_data
from fmbench.report.figures.equivalence import equivalence, equivalence_data
from fmbench.report.figures.fig02_08_fields import fields, fields_data
from fmbench.report.figures.fig03_trajectories import trajectories, trajectories_data
from fmbench.report.figures.fig04_06_09_along_t import along_t, fig06, states_data
from fmbench.report.figures.fig04_11_samples import fig04, fig04_data, fig11, fig11_data
from fmbench.report.figures.fig04_16_few_step import few_step_data, fig04_few_step, fig16
from fmbench.report.figures.fig05_10_learning_curves import fig05, fig05_data, fig10, fig10_data
from fmbench.report.figures.fig07_error import fig07, fig07_data
from fmbench.report.figures.fig07_quality import fig07_quality, fig07_quality_data
from fmbench.report.figures.nfe_distribution import nfe_distribution, nfe_distribution_data
from fmbench.report.figures.noise_levels import noise_levels, noise_levels_data
from fmbench.report.figures.panels import Drawing
from fmbench.report.figures.preview_rows import is_image, is_point
from fmbench.report.figures.samplers import samplers, samplers_data
from fmbench.report.figures.work_precision import work_precision, work_precision_data

PAPERS_THREE = ("score_matching", "fm_diffusion", "fm_ot")
"""The methods of the paper's figures 4 and 6."""

FIGURES: dict[str, Drawing] = {
    "fig02": Drawing(fields_data("fig02"), fields),
    "fig03": Drawing(trajectories_data, trajectories),
    "fig04": Drawing(fig04_data, fig04),
    "fig04_densities": Drawing(states_data(is_point), along_t, PAPERS_THREE),
    "fig04_few_step": Drawing(few_step_data(is_point), fig04_few_step),
    "fig05": Drawing(fig05_data, fig05),
    "fig06": Drawing(states_data(is_image), fig06, PAPERS_THREE),
    "fig07": Drawing(fig07_data, fig07),
    "fig07_quality": Drawing(fig07_quality_data, fig07_quality),
    "fig08": Drawing(fields_data("fig08"), fields),
    "fig09": Drawing(states_data(is_point), along_t, ("scoreflow", "ddpm")),
    "fig10": Drawing(fig10_data, fig10),
    "fig11": Drawing(fig11_data, fig11),
    "fig16": Drawing(few_step_data(is_image), fig16),
    "cost": Drawing(cost_data, cost),
    "densities": Drawing(densities_data, densities),
    "equivalence": Drawing(equivalence_data, equivalence),
    "nfe_distribution": Drawing(nfe_distribution_data, nfe_distribution),
    "noise_levels": Drawing(noise_levels_data, noise_levels),
    "samplers": Drawing(samplers_data, samplers),
    "work_precision": Drawing(work_precision_data, work_precision),
}
