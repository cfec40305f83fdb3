"""What an agent sees beside a group's features: named features of the state, and the bounds of all."""

STATE_FEATURES = (
    "budget",  # limit over dense cost
    "left",  # budget less `floor`
    "floor",  # cost over dense if this and later groups are cut to their floor, earlier ones as decided
    "ceiling",  # cost over dense if this and later groups are kept whole
    "least_density",  # of this group, that still uses the budget up
    "most_density",  # of this group, that still meets the budget
    "last_action",  # density executed in the step before, 1 at the start
)


LOWEST, HIGHEST = -1.0, 20.0  # bounds of every feature: shares are within [0, 1], logarithms far below 20
