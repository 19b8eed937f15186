"""Units in print."""

import re

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def pretty_units(units: str) -> str:
    """CF units in print: "m2 s-2" becomes "m² s⁻²", and no units "–"."""
    if units in ("", "1"):
        return "–"
    return re.sub(r"(?<=[A-Za-z])-?\d+", lambda match: match[0].translate(_SUPERSCRIPT), units)
