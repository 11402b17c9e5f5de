"""The contrast of colours (WCAG 2.1)."""

from typing import Any

from matplotlib.colors import to_rgb


def luminance(colour: Any) -> float:
    """The relative luminance of a colour that matplotlib knows."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(colour: Any) -> float:
    """The contrast of a colour with white paper, from 1 to 21. AA asks for 4.5 for text and 3 for marks."""
    return 1.05 / (luminance(colour) + 0.05)
