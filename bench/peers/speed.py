"""Added latency, throughput, processor time and memory: rounds that alternate, the others stopped meanwhile."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from bench.measures import Effort
from bench.natives import Load, LoadResult, Mock
from bench.peers.gateway import STREAM_CHUNKS, Caller, Gateway, refusal
from bench.peers.report import Speed, median

LOADED_CONNECTIONS = 64
_WARMUP_SECONDS = 0.5
_FIRST_SECONDS = 3.0
"""Load on each before the first round: lazy imports and empty pools are no figure of a running gateway."""


@dataclass(slots=True)
class _Runs:
    single: list[LoadResult] = field(default_factory=list)
    loaded: list[LoadResult] = field(default_factory=list)
    stream: list[LoadResult] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What a call was told right after a round with faults."""
    idle_mb: float = 0.0
    loaded_mb: float = 0.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where the load goes: a gateway, or (None) straight to the mock."""

    gateway: Gateway | None
    port: int
    caller: Caller


def speeds(load: Load, mock: Mock, gateways: Sequence[Gateway], effort: Effort) -> dict[str, Speed]:
    """One row a gateway; what it adds is its own figure minus the direct one of the same round."""
    mock.pace(chunks=STREAM_CHUNKS)
    direct = Target(None, mock.port, Caller("direct", {"authorization": "Bearer sk-any"}))
    targets = [direct, *(Target(one, one.port, one.caller("speed")) for one in gateways)]
    runs = [_Runs() for _ in targets]
    for found, target in zip(runs, targets, strict=True):
        if target.gateway is not None:
            found.idle_mb = target.gateway.rss_megabytes()
    for target in targets:
        _load(load, target, LOADED_CONNECTIONS, _FIRST_SECONDS)
    order = list(range(len(targets)))
    for number in range(effort.rounds):
        for index in order if number % 2 == 0 else reversed(order):
            with ExitStack() as others:
                for other in gateways:
                    if other is not targets[index].gateway:
                        others.enter_context(other.asleep())
                _round(load, mock, targets[index], runs[index], effort)
    return {
        target.gateway.name: _speed(found, runs[0])
        for found, target in zip(runs, targets, strict=True)
        if target.gateway is not None
    }


def _round(load: Load, mock: Mock, target: Target, found: _Runs, effort: Effort) -> None:
    found.single.append(_load(load, target, 1, effort.seconds))
    calls, cpu = mock.counts()["requests"], _cpu_seconds(target)
    found.loaded.append(_load(load, target, LOADED_CONNECTIONS, effort.seconds))
    # by the provider's count: the warm-up's calls cost time, too
    found.cpu_ms.append((_cpu_seconds(target) - cpu) * 1e3 / max(1, mock.counts()["requests"] - calls))
    if target.gateway is not None:
        found.loaded_mb = max(found.loaded_mb, target.gateway.rss_megabytes())
    found.stream.append(_load(load, target, 1, effort.seconds, stream=True))
    if any(runs[-1].faults for runs in (found.single, found.loaded, found.stream)):
        found.problems.append(refusal(target.port, target.caller))


def _load(
    load: Load, target: Target, connections: int, seconds: float, *, stream: bool = False
) -> LoadResult:
    return load.run(
        target.port,
        target.caller.headers,
        connections=connections,
        seconds=seconds,
        warmup=_WARMUP_SECONDS,
        stream=stream,
        path=target.caller.path,
        changes=target.caller.changes,
    )


def _cpu_seconds(target: Target) -> float:
    return 0.0 if target.gateway is None else target.gateway.cpu_seconds()


def _speed(found: _Runs, direct: _Runs) -> Speed:
    def added(of: Callable[[LoadResult], float], mine: list[LoadResult], base: list[LoadResult]) -> float:
        return median([of(one) - of(two) for one, two in zip(mine, base, strict=True)]) / 1e3

    return Speed(
        added_p50_ms=added(lambda run: run.latency.p50, found.single, direct.single),
        added_p99_ms=added(lambda run: run.latency.p99, found.single, direct.single),
        added_first_chunk_ms=added(_first_event, found.stream, direct.stream),
        requests_per_second=median([run.per_second for run in found.loaded]),
        cpu_ms_per_request=median(found.cpu_ms),
        rss_idle_mb=found.idle_mb,
        rss_loaded_mb=found.loaded_mb,
        problem=next(iter(found.problems), ""),
        faults=sum(run.faults for run in (*found.single, *found.loaded, *found.stream)),
    )


def _first_event(run: LoadResult) -> float:
    assert run.first_event is not None
    return run.first_event.p50
