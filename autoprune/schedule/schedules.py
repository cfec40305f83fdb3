"""The schedules of the literature, each a function of the state at a decision point.

One-shot, cubic (arXiv 1710.01878), iterative magnitude pruning with rewinding (1803.03635, 1912.05671, 2003.02389),
SET (1707.04780), RigL (1911.11134), AC/DC (2106.12379), and static masks as the control of the dynamic ones.
"""

import math

from autoprune.ranges import Count, Fraction, Natural, Share, checked
from autoprune.schedule.decision import Allocation, Criterion, Decision, Growth, Rewind, Schedule, TrainingState


@checked
def one_shot(
    *, start: Fraction = 0.5, allocation: Allocation = "global", criterion: Criterion = "magnitude"
) -> Schedule:
    """Returns: dense until `start` of the training budget is spent, then all at once, and fine-tuning.

    Args:
        start: The share of the training budget that is spent on the dense network.
        allocation: How densities are spread over layers.
        criterion: By which weights are ranked.
    """

    def schedule(state: TrainingState) -> Decision:
        if state.progress < start and state.decision == 0:
            return Decision(density=1.0, until=start)
        return Decision(density=state.target, allocation=allocation, criterion=criterion)

    return schedule


@checked
def cubic(
    *, start: Fraction = 0.1, end: Fraction = 0.7, decisions: Count = 20, allocation: Allocation = "global"
) -> Schedule:
    """Returns gradual pruning (arXiv 1710.01878): sparsity rises as 1 − (1 − t)³ between two shares of the budget.

    Args:
        start: Share of the training budget before the first removal.
        end: Share at which the target is reached.
        decisions: Removals.
        allocation: How the density is shared; the paper's is "uniform".
    """
    if not start < end:
        raise ValueError(f"a cubic schedule needs start below end, got {start} and {end}")

    def schedule(state: TrainingState) -> Decision:
        if state.progress < start - 1e-9 and state.decision == 0:
            return Decision(density=1.0, until=start)
        share = min(1.0, max(0.0, (state.progress - start) / (end - start)))
        removal = min(decisions, math.floor(share * (decisions - 1) + 1e-6) + 1)  # counted from 1
        density = state.target + (1 - state.target) * (1 - removal / decisions) ** 3
        if removal == decisions:
            return Decision(density=density, allocation=allocation)
        return Decision(density=density, allocation=allocation, until=start + (end - start) * removal / (decisions - 1))

    return schedule


@checked
def iterative_magnitude(
    *,
    rounds: Count = 5,
    rewind: Rewind = "initial",
    rewind_step: Natural = 0,
    output_rate: Share = 1.0,
    allocation: Allocation = "global",
) -> Schedule:
    """Returns lottery tickets' schedule: train, remove the same share of what is left, rewind, and again.

    Every round trains about as many steps, so a sparse one spends less of the budget that is counted in MACs. The first
    round is dense.

    Args:
        rounds: Removals; each takes the same share of what is left.
        rewind: "initial" (arXiv 1803.03635), "step" (1912.05671), "learning_rate" (2003.02389), or "none".
        rewind_step: That is rewound to, for the two in the middle.
        output_rate: The output layer loses this share of what the others lose; the tickets' paper has 0.5.
        allocation: "global", or "uniform" as in the tickets' paper for dense networks.

    Raises:
        ValueError: An output rate is asked for with one threshold for all layers.
    """
    if output_rate != 1 and allocation != "uniform":
        raise ValueError(f"output_rate={output_rate} needs allocation=uniform: one threshold knows no layers")

    def schedule(state: TrainingState) -> Decision:
        spends = [state.spends(state.target ** (number / rounds)) for number in range(rounds + 1)]
        steps = state.budget / sum(spends)
        if state.decision == 0 and steps < max(1, rewind_step + 1):
            least, each = max(1, rewind_step + 1), math.floor(100 * steps) / 100
            raise ValueError(
                f"a training budget of {state.budget:g} steps of the dense network leaves each of the {rounds + 1} "
                f"rounds {each:g} steps, and a round takes at least {least}; raise the training budget, or lower "
                "rounds or rewind_step"
            )
        number = min(state.decision, rounds)
        density = state.target ** (number / rounds)
        # of what is left, so that rounds whose masks cost more than their density shorten all later ones alike
        share = spends[number] / sum(spends[number:])
        until = 1.0 if number == rounds else min(1.0, state.progress + (1 - state.progress) * share)
        return Decision(
            density=density if allocation != "uniform" else _layers(state, number, rounds, output_rate),
            allocation=allocation,
            until=until,
            rewind="none" if number == 0 else rewind,
            rewind_step=rewind_step,
            save_steps=(rewind_step,) if rewind_step else (),
            cycle=True,
        )

    return schedule


def _layers(state: TrainingState, number: int, rounds: int, output_rate: float) -> dict[str, float]:
    """Each layer's density after so many rounds: alike, but that the output layer loses less in each."""
    free = sum(layer.weights for layer in state.layers)
    output = sum(layer.weights for layer in state.layers if layer.output)
    kept = state.kept(state.target)
    least = output * (1 - output_rate) ** rounds
    if least > kept:
        raise ValueError(
            f"with output_rate={output_rate} the output layer keeps {math.ceil(least)} weights after {rounds} rounds, "
            f"more than the {kept} that the density leaves all layers; raise rounds, output_rate or the density"
        )
    low, high = 0.0, 1.0  # share that the others lose in each round, by bisection
    for _ in range(60):
        middle = (low + high) / 2
        total = (free - output) * (1 - middle) ** rounds + output * (1 - output_rate * middle) ** rounds
        low, high = (middle, high) if total > kept else (low, middle)
    return {layer.name: (1 - (output_rate if layer.output else 1.0) * high) ** number for layer in state.layers}


@checked
def sparse_from_start(
    *,
    decisions: Count = 20,
    regrow: Fraction = 0.3,
    grow_by: Growth = "gradient",
    end: Fraction = 0.75,
    allocation: Allocation = "erk",
) -> Schedule:
    """Returns: a random mask at the target density from the first step, of which weights are exchanged as it trains.

    Args:
        decisions: Exchanges, evenly over the budget until `end`; the first decision only draws the mask.
        regrow: Share of the kept weights that the first exchange changes; it falls to 0 along a cosine.
        grow_by: "gradient" is RigL's, "random" SET's; a regrow of 0 is the static mask.
        end: Share of the training budget after which the mask stays.
        allocation: Of the mask among layers.
    """

    def schedule(state: TrainingState) -> Decision:
        if state.decision == 0:
            until = end / (decisions + 1) if regrow else 1.0
            return Decision(density=state.target, allocation=allocation, criterion="random", until=until)
        until = min(end, end * (state.decision + 1) / (decisions + 1))
        share = regrow / 2 * (1 + math.cos(math.pi * min(1.0, state.progress / end)))
        densities = {layer.name: layer.density for layer in state.layers}  # what each layer keeps stays
        last = state.decision >= decisions or state.progress >= until
        return Decision(density=densities, regrow=share, grow_by=grow_by, until=1.0 if last else until)

    return schedule


@checked
def rigl(*, decisions: Count = 20, regrow: Fraction = 0.3, end: Fraction = 0.75) -> Schedule:
    """Returns RigL (arXiv 1911.11134): Erdős–Rényi-kernel densities, weights grow where gradients are largest.

    Args:
        decisions: How often weights are exchanged.
        regrow: The share of the kept weights that is exchanged at first; it falls as a cosine.
        end: The share of the training budget after which nothing is exchanged.
    """
    return sparse_from_start(decisions=decisions, regrow=regrow, grow_by="gradient", end=end)


@checked
def sparse_evolutionary(*, decisions: Count = 20, regrow: Fraction = 0.3, end: Fraction = 1.0) -> Schedule:
    """Returns SET (arXiv 1707.04780): as RigL, but weights grow at random.

    Args:
        decisions: How often weights are exchanged.
        regrow: The share of the kept weights that is exchanged at first; it falls as a cosine.
        end: The share of the training budget after which nothing is exchanged.
    """
    return sparse_from_start(decisions=decisions, regrow=regrow, grow_by="random", end=end)


@checked
def static_mask(*, allocation: Allocation = "erk") -> Schedule:
    """Returns a random mask that never changes: the control of dynamic sparse training."""
    return sparse_from_start(regrow=0.0, allocation=allocation)


@checked
def alternating(
    *, warmup: Fraction = 0.1, phases: Count = 5, end: Fraction = 0.8, allocation: Allocation = "global"
) -> Schedule:
    """Returns AC/DC (arXiv 2106.12379): phases at the target density and dense ones take turns.

    Args:
        warmup: Share of the training budget that is dense before the first.
        phases: Sparse phases, a dense one between each two; the last sparse one lasts to the end.
        end: Share at which it begins.
        allocation: Of the sparse masks.
    """
    if not warmup < end:
        raise ValueError(f"alternating phases need warmup below end, got {warmup} and {end}")

    def schedule(state: TrainingState) -> Decision:
        if state.decision == 0 and warmup > 0:
            return Decision(density=1.0, until=warmup)
        number = state.decision - (warmup > 0)  # of sparse phases 0, 2, …, of dense ones 1, 3, …
        if number >= 2 * (phases - 1):
            return Decision(density=state.target, allocation=allocation)
        until = warmup + (end - warmup) * (number + 1) / (2 * (phases - 1))
        return Decision(density=1.0 if number % 2 else state.target, allocation=allocation, until=until)

    return schedule
