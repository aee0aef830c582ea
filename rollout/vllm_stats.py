"""vLLM's own numbers of each of its steps, for an `OccupancyMeter` and for Ray's gauges."""

from __future__ import annotations

from typing import Any

from vllm.config import VllmConfig
from vllm.v1.metrics.loggers import StatLoggerBase
from vllm.v1.metrics.stats import IterationStats, SchedulerStats

from rollout.occupancy import OccupancyMeter


def stats_for(meter: OccupancyMeter) -> Any:
    """What `AsyncLLM` takes among its `stat_loggers`."""

    def make(vllm_config: VllmConfig, engine_index: int = 0) -> _Teller:
        return _Teller(meter)

    return make


def stats_for_ray() -> Any:
    """The same, of all that vLLM would tell Prometheus itself. Ray must be running, and have Ray Serve's libraries."""
    from vllm.v1.metrics.ray_wrappers import RayPrometheusStatLogger  # here: it imports Ray Serve

    return RayPrometheusStatLogger


class _Teller(StatLoggerBase):
    def __init__(self, meter: OccupancyMeter) -> None:
        self._meter = meter

    def record(
        self,
        scheduler_stats: SchedulerStats | None,
        iteration_stats: IterationStats | None,
        *_: object,
        **__: object,
    ) -> None:
        if scheduler_stats is not None:
            waiting = scheduler_stats.num_waiting_reqs + scheduler_stats.num_skipped_waiting_reqs
            preempted = iteration_stats.num_preempted_reqs if iteration_stats is not None else 0
            self._meter.saw(waiting, scheduler_stats.kv_cache_usage, preempted)

    def log_engine_initialized(self) -> None:
        pass
