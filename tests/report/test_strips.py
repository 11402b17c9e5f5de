"""A strip of the page's forest plot: where its marks are, which shapes verdicts have, what the reference adds."""

import math
import re
from xml.etree import ElementTree

import pandas as pd

from fmbench.report.claims.verdicts import FAILS, HOLDS, INCONCLUSIVE, NOT_TESTED, VERDICTS
from fmbench.report.page.strips import CLASSES, HALF, badge, strip

EVIL = "</title><script>x</script>&"


def lines(*rows: dict) -> pd.DataFrame:
    base = {"dataset": "d", "about": "trained", "part": "NLL", "against": "ddpm", "unit": "nats", "threshold": 0.0}
    base |= {"value": -1.0, "low": -2.0, "high": 0.0, "at": 0.5, "left": 0.0, "right": 1.0, "verdict": HOLDS}
    return pd.DataFrame([base | row for row in rows])


def test_a_verdict_has_a_shape_and_a_style_of_its_own():
    shapes = {re.sub(r"[\d.-]+", "", badge(verdict).split("<svg")[1].split("</svg>")[0]) for verdict in VERDICTS}
    assert len(shapes) == len(VERDICTS) == len(set(CLASSES.values()))
    assert badge(HOLDS, "2 < 3").endswith("2 &lt; 3</span>")


def test_marks_lie_at_their_places_with_the_numbers_to_read():
    drawn = strip(lines({}, {"at": -1.0, "left": math.nan, "right": math.nan, "verdict": FAILS}), pd.DataFrame())
    root = ElementTree.fromstring(drawn)
    assert root.get("aria-label") == "d: 2 lines of evidence, 1 holds, 1 fails"
    one, other = root.findall("g")
    assert one.find("title").text == "NLL against DDPM: -1 [-2, 0] nats, threshold 0: holds"
    assert float(one.find("circle").get("cx")) == HALF + 0.5 * (HALF - 5)
    assert one.find("path").get("d").startswith(f"M{HALF}.0 ") and one.find("path").get("d").endswith(f"H{2 * HALF - 5}.0")
    (cross,) = other.findall("path")  # without an interval
    assert cross.get("d").startswith("M5 ")


def test_the_reference_is_a_band_and_a_tick_behind_the_same_line():
    then = lines({"verdict": INCONCLUSIVE, "at": 0.0, "value": 0.0}, {"against": "scoreflow"})
    root = ElementTree.fromstring(strip(lines({}), then))
    order = [element.get("class") for element in root]
    assert order == ["reference", "threshold", "holds"]
    assert root[2].find("title").text.endswith("holds. The reference has 0 [-2, 0] nats: inconclusive")
    assert root[0].findall("path")[1].get("d").startswith(f"M{HALF}.0 ")


def test_texts_of_strangers_stay_text():
    drawn = strip(lines({"dataset": EVIL, "part": EVIL, "unit": EVIL, "against": EVIL, "verdict": NOT_TESTED}), pd.DataFrame())
    assert "<script" not in drawn and ElementTree.fromstring(drawn).find("g").find("title").text.startswith(EVIL)
