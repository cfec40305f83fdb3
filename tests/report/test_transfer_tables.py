"""What a training prints."""

import io
from pathlib import Path

from rich.console import Console

from autoprune.report.transfer_tables import print_trained
from autoprune.transfer.held_out import HeldOut


def printed(rows: list[HeldOut]) -> str:
    console = Console(file=io.StringIO(), width=80)
    print_trained(rows, Path("run/policy"), console=console)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def row(network: str, **kl: float) -> HeldOut:
    known = {"uniform": 0.3, "sensitivity": 0.2, "policy": 0.15, "returned": 0.15, "best": 0.1, **kl}
    return HeldOut(
        network, "plain", "macs:0.4", "policy", 40, 0.2, dict.fromkeys(("search", "held_out", "test"), known)
    )


def test_scores_lie_between_the_uniform_plan_and_the_best() -> None:
    text = printed([row("fashion_mobilenet"), row("digits_plain_8", returned=0.3, policy=0.5)])
    first = next(line for line in text.splitlines() if "fashion_mobilenet" in line)
    assert first.split()[2:] == ["0.50", "0.75", "0.75", "policy"]
    second = next(line for line in text.splitlines() if "digits_plain_8" in line)
    assert second.split()[2:5] == ["0.50", "-1.00", "0.00"]
    assert "what the policy returns scores 0.38 on average, the sensitivity plan 0.50" in text
    assert "policy: run/policy" in text


def test_without_networks_that_were_held_out_it_says_where_the_policy_is() -> None:
    assert printed([]) == "policy: run/policy\n"
