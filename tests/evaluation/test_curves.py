import numpy as np

from autoprune.evaluation.curves import curve_plans, single_group_curves
from tests.tasks import prepared, tiny_task


def test_each_plan_prunes_one_group_alone_on_its_levels() -> None:
    ready = prepared(tiny_task("separable"), round_to=2)
    units = ready.structure.units
    for index, (group, plans) in enumerate(
        zip(ready.structure.groups, curve_plans(ready.structure).values(), strict=True)
    ):
        kept = [plan.kept[index] for plan in plans]
        assert kept == sorted(set(kept))
        assert set(kept) <= set(group.levels[:-1])
        for plan in plans:
            assert [i for i, k in enumerate(plan.kept) if k != units[i]] == [index]


def test_curves_fall_to_nothing_and_never_rise() -> None:
    ready = prepared(tiny_task())
    for group, curve in zip(
        ready.structure.groups,
        single_group_curves(ready.structure, ready.objective.uncharged.evaluate).values(),
        strict=True,
    ):
        loss = curve.at(group.levels)
        assert loss[-1] == 0
        assert (np.diff(loss) <= 1e-12).all()
        assert (loss >= 0).all()
