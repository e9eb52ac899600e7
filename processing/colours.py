"""Colours of figures that colour-blind readers tell apart (Paul Tol's "bright")."""

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")
