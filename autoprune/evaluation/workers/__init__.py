"""Where plans are judged: in this process, in others beside it, or on other machines."""

from autoprune.evaluation.workers.pool import Failure, InProcess, JudgeJob, Pool
from autoprune.evaluation.workers.processes import Processes
from autoprune.evaluation.workers.ray_actors import RayActors

__all__ = ["Failure", "InProcess", "JudgeJob", "Pool", "Processes", "RayActors"]
