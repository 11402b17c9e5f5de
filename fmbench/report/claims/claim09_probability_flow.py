"""Claim 9: the VP conditional field equals the probability-flow field (appendix D)."""

from fmbench.report.claims.claim import Claim, Drafts, Sources
from fmbench.report.claims.definitions import exact


def probability_flow(sources: Sources) -> Drafts:
    """Compares the field of the VP path with the drift of the VP diffusion's probability flow, at the same points and times."""
    lines: Drafts = []
    for identity, rows in sources["identities"].groupby("identity", sort=False):
        relative = (rows.max_difference / rows.scale).to_numpy(float)
        note = f", at {len(rows)} times with {rows.n.iloc[0]} points each"
        lines.append(exact(9, str(identity), "largest difference", "of the largest field", relative.tolist(), note))
    return lines


CLAIM = Claim(
    number=9,
    title="The VP conditional field equals the probability-flow field",
    statement="The conditional field of the VP path equals the drift of the probability-flow equation of the VP diffusion.",
    where="Appendix D",
    how="The test computes both fields at the same random points, for one data point and for a mixture, each field from its "
    "own definition. One is the path's field by eq. 15. The other is -beta/2 (x + grad log p) in reversed time, with the "
    "gradient by automatic differentiation.",
    needs=("identities",),
    evaluate=probability_flow,
)
