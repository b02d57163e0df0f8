"""`python -m bench [--quick] [--only PART,...] [--json FILE]`, PARTS below."""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from bench import machine, measures
from bench.measures import Effort, Table
from bench.natives import Load, Mock, compile_tools, running_mock
from bench.subjects import Subject, start_subjects

PARTS = (
    "throughput",
    "latency",
    "streaming",
    "memory",
    "startup",
    "translation",
    "kill",
    "runaway",
    "simulate",
    "sdk",
    "steering",
    "console",
)
_ALONE = {"startup", "translation", "runaway", "simulate", "sdk", "console"}
"""Parts that need neither mock nor load."""
_BUSY_SHARE = 0.05
"""Share of the machine used by others above which the figures are called suspect."""


def main() -> int:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="one short round: a check of the harness, not a figure"
    )
    parser.add_argument("--only", default=",".join(PARTS), help="comma-separated parts")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args()
    wanted = [part.strip() for part in options.only.split(",") if part.strip()]
    unknown = sorted(set(wanted) - set(PARTS))
    if unknown:
        parser.error(f"unknown part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    machine.require_linux()
    machine.raise_file_limit()
    cores = machine.choose_cores()
    facts = machine.describe(cores)
    for name, value in facts.items():
        print(f"{name:>9}: {value}")
    effort = Effort.of(quick=options.quick)
    tables: list[Table] = []
    missing: dict[str, str] = {}
    bystanders = machine.Bystanders()
    with tempfile.TemporaryDirectory(prefix="outlay-bench-") as name:
        folder = Path(name)
        if set(wanted) - _ALONE:
            compile_tools(folder)
        for part in PARTS:
            if part in wanted:
                table, absent = _measure(part, folder, cores, effort)
                missing |= absent
                tables.append(table)
                print("\n" + rendered(table), flush=True)
    busy = bystanders.share()
    print(
        f"\nother processes used {busy:.0%} of the machine meanwhile"
        + (": SUSPECT" if busy > _BUSY_SHARE else "")
    )
    for subject, reason in missing.items():
        print(f"{subject}: MISSING: {reason}")
    if options.json is not None:
        report = {
            "machine": facts,
            "effort": {"rounds": effort.rounds, "seconds": effort.seconds},
            "others_share": round(busy, 4),
            "missing": missing,
            "tables": [table.as_json() for table in tables],
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def _measure(part: str, folder: Path, cores: machine.Cores, effort: Effort) -> tuple[Table, dict[str, str]]:
    """One part, on subjects of its own: none inherits the memory or the ledger of the part before."""
    if part == "startup":
        return measures.startup(effort), {}
    if part == "runaway":
        from bench import runaway

        return runaway.table(), {}
    if part == "kill":
        from bench import kill

        return kill.table(folder, cores), {}
    if part == "simulate":
        from bench import simulate

        return simulate.table(effort), {}
    if part == "translation":
        from bench import translation

        return translation.table(effort), {}
    if part == "sdk":
        from bench import sdk

        return sdk.table(effort), {}
    if part == "console":
        from bench import console

        return console.table(effort), {}
    workdir = Path(tempfile.mkdtemp(dir=folder))
    load = Load(folder, cores.load)
    with running_mock(folder, cores.load) as mock:
        if part == "steering":
            from bench import steering

            return steering.table(workdir, cores, mock, load, effort), {}
        subjects, missing = start_subjects(workdir, mock.port, cores)
        try:
            return _measured(part, load, mock, subjects, effort), missing
        finally:
            for subject in subjects:
                subject.stop()


def _measured(part: str, load: Load, mock: Mock, subjects: list[Subject], effort: Effort) -> Table:
    match part:
        case "throughput":
            return measures.throughput(load, subjects, effort)
        case "latency":
            return measures.latency(load, subjects, effort)
        case "streaming":
            return measures.streaming(load, mock, subjects, effort)
        case _:
            return measures.memory(load, mock, subjects)


def rendered(table: Table) -> str:
    """The table as text: one line a subject, one column a figure."""
    columns = list(dict.fromkeys(key for row in table.rows.values() for key in row))
    cells = [["", *columns]]
    for name, row in table.rows.items():
        cells.append([name, *(_number(row[key]) if key in row else "-" for key in columns)])
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns) + 1)]
    lines = [table.title]
    for line in cells:
        first, *rest = (text.rjust(width) for text, width in zip(line, widths, strict=True))
        lines.append("  ".join([first.strip().ljust(widths[0]), *rest]).rstrip())
    return "\n".join([*lines, *(f"  {note}" for note in table.notes)])


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.3f}"


if __name__ == "__main__":
    sys.exit(main())
