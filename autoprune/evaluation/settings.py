"""How plans are evaluated: what `evaluation.…` says in a configuration."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from autoprune.evaluation.race import Race

Precision = Literal["auto", "fp32", "bf16"]
PoolKind = Literal["processes", "ray"]


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """proxy_samples: of the search role, the others are held out to choose a plan by; None: as many as the task
    says, or half of them, at most 1,500.

    batch_size: samples per forward pass, which is part of what is measured where BatchNorm is repaired; "auto": the
    smallest that is about as fast as any on this machine. precision: "auto" is bf16 where the device computes in it and
    it ranks a few plans as fp32 does. race: None judges every plan on all samples.
    workers: processes of one thread each that judge plans; 0: this process does. pool: "processes" or "ray", which
    starts a local cluster or joins the one at `address`. time_limit_s: what a worker may take for one job.
    store: the folder of the evaluation store; None keeps nothing beyond this process.
    """

    proxy_samples: int | None = None
    batch_size: int | Literal["auto"] = 50
    precision: Precision = "auto"
    race: Race | None = None
    workers: int = 0
    pool: PoolKind = "processes"
    address: str | None = None
    time_limit_s: float | None = None
    store: Path | None = None

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise ValueError(f"evaluation.precision must be one of {list(get_args(Precision))}, got {self.precision!r}")
        if self.pool not in get_args(PoolKind):
            raise ValueError(f"evaluation.pool must be one of {list(get_args(PoolKind))}, got {self.pool!r}")
        if self.workers < 0:
            raise ValueError(f"evaluation.workers must be 0 (this process) or more, got {self.workers}")
        if self.batch_size != "auto" and self.batch_size < 2:
            raise ValueError(f"evaluation.batch_size must be at least 2, or auto; got {self.batch_size}")
        if self.pool == "ray" and self.workers == 0:
            raise ValueError("evaluation.pool=ray needs evaluation.workers of at least 1")
        if self.address is not None and self.pool != "ray":
            raise ValueError(f"evaluation.address={self.address} is a Ray cluster's; it needs evaluation.pool=ray")
        if self.time_limit_s is not None and (self.workers == 0 or self.time_limit_s <= 0):
            raise ValueError(
                f"evaluation.time_limit_s={self.time_limit_s} must be positive, and needs evaluation.workers of at "
                "least 1: only another process can be stopped"
            )
