"""The figures of one run as records, and as Markdown for the README. Nothing here measures."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

NONE = "-"


@dataclass(frozen=True, slots=True)
class Speed:
    """Medians over the rounds."""

    added_p50_ms: float
    added_p99_ms: float
    added_first_chunk_ms: float
    requests_per_second: float
    cpu_ms_per_request: float
    rss_idle_mb: float
    rss_loaded_mb: float
    faults: int = 0
    """Answers of all rounds that were not 2xx or broke off: with any, the figures are void."""
    problem: str = ""
    """What a call was told after the first round with faults."""


@dataclass(frozen=True, slots=True)
class Storm:
    """One storm of one gateway."""

    kind: str
    calls: int
    budget_calls: int
    through: int
    """Requests that reached the provider, by its count."""
    billed_calls: float
    """The provider's bill, in whole calls' worth (of money, or of tokens where the gateway counts those)."""
    booked_calls: float | None
    """The same, by the gateway's books."""
    refused: Mapping[str, int]
    broken: int
    seconds: float

    @property
    def of_budget(self) -> float:
        """Spent by the provider's bill over the budget."""
        return self.billed_calls / self.budget_calls


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill -9 under load, with a budget that is never reached."""

    after_seconds: float
    answered: int
    """Calls whose whole answer was with the client before the kill."""
    reached: int
    """Calls that reached the provider, by its count."""
    booked_calls: float | None
    """In the books after the restart, in whole calls' worth."""


@dataclass(frozen=True, slots=True)
class Rounds:
    """A budget worth `budget_calls`; load, kill -9, restart, again."""

    budget_calls: int
    through: Sequence[int]
    """Requests that reached the provider, round by round."""
    booked_calls: float | None


@dataclass(slots=True)
class Subject:
    """One gateway in the report."""

    name: str
    setting: str
    unit: str = "money"
    """What its budgets are of."""
    speed: Speed | None = None
    storms: list[Storm] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    rounds: Rounds | None = None


@dataclass(slots=True)
class Report:
    """One run."""

    facts: Mapping[str, str]
    versions: Mapping[str, str]
    effort: str
    subjects: list[Subject] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    others_share: float = 0.0
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def markdown(report: Report) -> str:
    """One table for all, then each with its terms."""
    tables = [table for table in (_speed(report), _storms(report), _kills(report), _rounds(report)) if table]
    parts = [*([summary(report)] if tables else []), _machine(report), _settings(report), *tables]
    if report.missing:
        parts.append("\n".join(f"- {name}: MISSING: {why}" for name, why in sorted(report.missing.items())))
    return "\n\n".join(parts) + "\n"


def summary(report: Report) -> str:
    """The README's table: what each costs and what a budget of it holds."""
    kinds = list(dict.fromkeys(storm.kind for one in report.subjects for storm in one.storms))
    head = [
        "gateway",
        "added p50 / p99 ms",
        "added ms to first chunk",
        "requests/s",
        "MB idle / after load",
        *(f"storm: {kind}" for kind in kinds),
        f"through {_kill_count(report)} x kill -9",
    ]
    rows = []
    for one in report.subjects:
        through = {storm.kind: storm for storm in one.storms}
        rows.append(
            [
                one.name,
                *_speed_cells(one.speed),
                *(_of_budget(through.get(kind)) for kind in kinds),
                NONE if one.rounds is None else str(sum(one.rounds.through)),
            ]
        )
    return table(head, rows)


def _kill_count(report: Report) -> int:
    return max((len(one.rounds.through) for one in report.subjects if one.rounds is not None), default=0)


def _speed_cells(found: Speed | None) -> list[str]:
    if found is None or found.faults:
        return [NONE] * 4
    return [
        f"{milliseconds(found.added_p50_ms)} / {milliseconds(found.added_p99_ms)}",
        milliseconds(found.added_first_chunk_ms),
        f"{found.requests_per_second:,.0f}",
        f"{found.rss_idle_mb:.0f} / {found.rss_loaded_mb:.0f}",
    ]


def _of_budget(storm: Storm | None) -> str:
    return NONE if storm is None else str(storm.through)


def _machine(report: Report) -> str:
    known = report.facts
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    lines = [
        f"Measured on {known['date']} at commit {known['commit']}: {known['cpu']}, {known['cores']} cores,"
        f" kernel {known['kernel']}; {known['pinning']}; other processes used {report.others_share:.0%} of the"
        f" machine meanwhile. {report.effort}",
        f"Versions: {versions}.",
        *report.notes,
    ]
    return "\n".join(lines)


def _settings(report: Report) -> str:
    return table(["gateway", "runs with"], [[one.name, one.setting] for one in report.subjects])


def _speed(report: Report) -> str:
    rows = []
    for one in report.subjects:
        found = one.speed
        if found is None:
            continue
        if found.faults:
            rows.append([one.name, f"void: {found.faults} calls failed", *[NONE] * 4])
            continue
        latency, first_chunk, requests, memory = _speed_cells(found)
        cpu = milliseconds(found.cpu_ms_per_request)
        rows.append([one.name, latency, first_chunk, requests, cpu, memory])
    if not rows:
        return ""
    head = [
        "gateway",
        "added p50 / p99 ms, 1 connection",
        "added ms to a stream's first chunk",
        "requests/s, 64 connections",
        "CPU ms a request",
        "MB idle / after load",
    ]
    return table(head, rows)


def _storms(report: Report) -> str:
    kinds = list(dict.fromkeys(storm.kind for one in report.subjects for storm in one.storms))
    if not kinds:
        return ""
    rows = []
    for one in report.subjects:
        if not one.storms:
            continue
        by_kind = {storm.kind: storm for storm in one.storms}
        rows.append([f"{one.name} ({one.unit})", *(_storm_cell(by_kind.get(kind)) for kind in kinds)])
    first = next(storm for one in report.subjects for storm in one.storms)
    terms = (
        f"Storm: a budget worth {first.budget_calls} calls, {first.calls:,} calls, the answer (or first chunk) after"
        " 300 ms. A cell: calls that reached the provider; the provider's bill over the budget; (what the gateway's"
        " books say of that bill)."
    )
    return terms + "\n\n" + table(["gateway", *kinds], rows)


def _storm_cell(storm: Storm | None) -> str:
    if storm is None:
        return NONE
    cell = f"{storm.through}; {storm.of_budget:.2f}x"
    if storm.booked_calls is not None and storm.billed_calls:
        cell += f" ({storm.booked_calls / storm.billed_calls:.0%})"
    if storm.broken:
        cell += f", {storm.broken} broke off"
    return cell


def _kills(report: Report) -> str:
    rows = [
        [
            one.name,
            f"{kill.after_seconds:g} s",
            str(kill.answered),
            str(kill.reached),
            NONE if kill.booked_calls is None else f"{kill.booked_calls:.0f}",
            _lost(kill),
        ]
        for one in report.subjects
        for kill in one.kills
    ]
    if not rows:
        return ""
    terms = (
        "`kill -9` under load (50 callers, answers after 300 ms, a budget that is not reached), restart, and what the"
        " books then hold, in whole calls' worth. Lost: answered calls that are not in the books."
    )
    head = ["gateway", "killed after", "answered", "reached the provider", "in the books", "lost"]
    return terms + "\n\n" + table(head, rows)


def _lost(kill: Kill) -> str:
    if kill.booked_calls is None:
        return NONE
    if not kill.answered:
        return "0 %"
    return f"{max(0.0, 1 - kill.booked_calls / kill.answered):.0%}"


def _rounds(report: Report) -> str:
    rows = []
    for one in report.subjects:
        found = one.rounds
        if found is not None:
            total = sum(found.through)
            rows.append(
                [
                    one.name,
                    " + ".join(str(count) for count in found.through) + f" = {total}",
                    f"{total / found.budget_calls:.2f}x",
                    NONE if found.booked_calls is None else f"{found.booked_calls:.0f}",
                ]
            )
    if not rows:
        return ""
    budget = next(one.rounds.budget_calls for one in report.subjects if one.rounds is not None)
    terms = f"A budget worth {budget} calls through kills: six seconds of load, `kill -9`, restart, the same again."
    head = ["gateway", "reached the provider, by round", "of the budget", "in the books at the end"]
    return terms + "\n\n" + table(head, rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; a bar in a cell is escaped, a line end becomes a space."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(text) for text in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def milliseconds(value: float) -> str:
    """Two digits that matter below ten, none behind the point above."""
    if value >= 10:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"
