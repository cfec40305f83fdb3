"""The card of a policy: what it is, what it was trained on, how well it does elsewhere, and where it ends."""

from collections.abc import Mapping

from autoprune.agent.policy_file import RECORD, WEIGHTS, is_transferable
from autoprune.agent.trained_policy import TrainedPolicy
from autoprune.agent.training_record import TrainingRecord


def card(policy: TrainedPolicy, training: TrainingRecord) -> str:
    """Markdown, for people; nothing reads it back.

    Args:
        policy: The trained policy.
        training: What the policy was trained on.
    """
    transferable = is_transferable(policy.architecture)
    parts = [_what(policy, training, transferable=transferable), _trained(training)]
    if training.held_out:
        parts.append(_held_out(training))
    parts += [_limits(training, transferable=transferable), _use(transferable=transferable)]
    return "\n\n".join(parts) + "\n"


def _what(policy: TrainedPolicy, training: TrainingRecord, *, transferable: bool) -> str:
    network = policy.architecture
    encoder = f", encoder {network['options']['encoder']}" if transferable else ""
    any_network = "It reads any number of groups."
    fits = any_network if transferable else "It fits the network that it was trained on, and no other."
    needs = ["every group's loss when it is pruned alone"] if training.curves else []
    needs += [f"the {training.prior} plan"] if training.prior != "none" else []
    needed = f"\nBeside the features it needs {' and '.join(needs)}." if needs else ""
    return f"""# A pruning policy

{policy.algorithm}{encoder}, hidden layers {network["hidden"]}, {network["activation"]}.
It proposes how much of each group of a network to keep ({training.mode}); an action means:
{training.actions}. {fits}{needed}"""


def _trained(training: TrainingRecord) -> str:
    max_log_correction = (
        ""
        if training.max_log_correction is None
        else f"\n| an action of 1 | {training.max_log_correction:g} more in log-density |"
    )
    ranges = "".join(
        f"\n| {cost} | {f'{low:.4g}' if low == high else f'{low:.4g} to {high:.4g}'} of dense |"
        for cost, (low, high) in sorted(training.budgets.items())
    )
    return f"""## What it was trained on

| | |
|---|---|
| trained on | {", ".join(training.tasks)} |
| rewards | {training.score} |
| budget | {training.budget} |{ranges}{max_log_correction}
| evaluations | {training.evaluations} |
| seeds | {", ".join(map(str, training.seeds))} |
| observation | {", ".join(training.features)} |"""


def _held_out(training: TrainingRecord) -> str:
    rows = "\n".join(f"| {' | '.join(_cells(row))} |" for row in training.held_out)
    return f"""## How well it does on networks that it never saw

0 is the uniform plan, 1 the best plan known. A policy below the sensitivity plan is not worth its trouble there.

| network | family | budget | this policy | sensitivity plan |
|---|---|---|---|---|
{rows}"""


def _cells(row: Mapping[str, object]) -> list[str]:
    names = [str(row[name]) for name in ("network", "family", "budget")]
    return names + [f"{row[name]:.2f}" for name in ("score", "sensitivity")]


def _limits(training: TrainingRecord, *, transferable: bool) -> str:
    limits = [
        f"It learned from rewards made of {training.score}. What is best by another score may be another plan.",
        "It proposes and does not measure. Whatever it proposes has to be compared with the uniform and the "
        "sensitivity plan on the network in question.",
    ]
    if training.budgets:
        costs = ", ".join(sorted(training.budgets))
        one = all(low == high for low, high in training.budgets.values())
        others = "Other budgets than the one above" if one else "Budgets outside the ranges above"
        limits.append(f"{others}, and in other costs than {costs}, were never practised.")
    if transferable:
        limits.append(
            "Networks unlike those that it was trained on, above all kinds of layers that none of them had "
            "(transformers, unless they are listed), are a guess."
        )
        if not training.held_out:
            limits.append("How well it does on networks that it never saw was not measured.")
    return "## Its limits\n\n" + "\n".join(f"- {limit}" for limit in limits)


def _use(*, transferable: bool) -> str:
    files = f"`{WEIGHTS}` holds the weights, `{RECORD}` what is needed to rebuild the network; neither is a pickle."
    if not transferable:
        return f"""## How to use it

{files} It makes a plan for the network that it was trained on, at this budget or at others:

```python
from autoprune import Policy

plan = Policy.load(path).plan(task, "macs:0.4")
```"""
    return f"""## How to use it

```bash
autoprune apply policy=PATH task=fashion_resnet20 budget=macs:0.4
```

```python
from autoprune import Policy

plan = Policy.load(path).plan(task, "macs:0.4")
```

{files}"""
