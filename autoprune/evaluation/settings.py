"""How plans are evaluated: what `evaluation.…` says in a configuration."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from autoprune.evaluation.race import Race
from autoprune.evaluation.short_training import ShortTraining
from autoprune.machine_cache import cache_dir
from autoprune.ranges import Batch, Count, Natural, Positive, check_fields

Precision = Literal["auto", "fp32", "bf16"]
PoolKind = Literal["processes", "ray"]


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """How plans are judged."""

    proxy_samples: Count | None = None
    """Of the search role, that rewards see; the others choose the final plan. None: as many as the task says, or half
    of them, at most 1,500."""
    batch_size: Batch | Literal["auto"] = "auto"
    """Samples per forward pass, at least 2; part of what is measured where BatchNorm is repaired. "auto": the smallest
    that is about as fast as any on this machine."""
    precision: Precision = "auto"
    """"auto": bf16 where the device computes in it and it ranks a few plans as fp32 does."""
    race: Race | None = field(default_factory=Race)
    """How plans of a batch leave it when they are clearly losing; None: every plan is judged on all samples."""
    workers: Natural = 0
    """Processes of one thread each that judge plans; 0: this process does."""
    pool: PoolKind = "processes"
    """"processes" on this machine, or "ray", which starts a local cluster or joins the one at `address`."""
    address: str | None = None
    """Of a Ray cluster."""
    time_limit_s: Positive | None = None
    """What a worker may take for one job, in seconds."""
    store: Path | Literal["shared"] | None = "shared"
    """The folder where judged plans are kept; "shared": that of all runs on this machine; None: nowhere."""
    training: ShortTraining | None = None
    """What is done with a pruned network before it is judged, beside its repair."""

    @property
    def folder(self) -> Path | None:
        """Where judged plans are kept."""
        return cache_dir() if self.store == "shared" else self.store

    def __post_init__(self) -> None:
        check_fields(self, "evaluation")
        if self.pool == "ray" and self.workers == 0:
            raise ValueError("evaluation.pool=ray needs evaluation.workers of at least 1")
        if self.address is not None and self.pool != "ray":
            raise ValueError(f"evaluation.address={self.address} is a Ray cluster's; it needs evaluation.pool=ray")
        if self.time_limit_s is not None and self.workers == 0:
            raise ValueError(
                f"evaluation.time_limit_s={self.time_limit_s} needs evaluation.workers of at least 1: only another "
                "process can be stopped"
            )
