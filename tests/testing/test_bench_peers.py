"""The comparison with other gateways: its report says what was measured, its bill and its reasons are right."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from bench.natives import request_bytes
from bench.peers import report
from bench.peers.__main__ import main
from bench.peers.clients import Kind, is_whole, request_of
from bench.peers.environment import reason
from bench.peers.gateway import Bill, Caller

SPEED = report.Speed(0.224, 1.86, 0.41, 14991.4, 0.066, 69.4, 82.6)
STORM = report.Storm("streams", 1000, 100, 103, 103.0, 51.5, {"422": 897}, 0, 9.0)


def full() -> report.Report:
    facts = {
        "date": "2026-11-28",
        "commit": "abc",
        "cpu": "a CPU",
        "cores": "2",
        "kernel": "6",
        "pinning": "pinned",
    }
    one = report.Subject("Outlay", "4 budgets | all of them")
    one.speed, one.storms = SPEED, [STORM]
    one.kills = [report.Kill(5.0, 200, 250, 150.0)]
    one.rounds = report.Rounds(100, [99, 0, 1], 100.2)
    return report.Report(facts, {"Peer": "1.2"}, "Medians.", [one], {"Other": "no wheel"}, 0.031)


def rows(text: str, first: str) -> list[list[str]]:
    """The cells of the table rows that start with this text."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith(f"| {first}")]
    return [[cell.strip() for cell in line] for line in lines]


def test_every_figure_has_its_cell() -> None:
    text = report.markdown(full())
    summary, settings, speed, storm, kill, rounds = rows(text, "Outlay")
    assert summary == ["Outlay", "0.22 / 1.9", "0.41", "14,991", "69 / 83", "103", "100"]
    assert settings == ["Outlay", "4 budgets \\| all of them"]
    assert speed == ["Outlay", "0.22 / 1.9", "0.41", "14,991", "0.07", "69 / 83"]
    assert storm == ["Outlay (money)", "103; 1.03x (50%)"]
    assert kill == ["Outlay", "5 s", "200", "250", "150", "25%"]
    assert rounds == ["Outlay", "99 + 0 + 1 = 100", "1.00x", "100"]
    assert "- Other: MISSING: no wheel" in text
    assert "commit abc" in text and "3% of the machine" in text and "Peer 1.2" in text


def test_every_table_has_one_width() -> None:
    for block in report.markdown(full()).split("\n\n"):
        lines = [line.replace("\\|", "") for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1


def test_failed_calls_void_the_figures() -> None:
    found = full()
    found.subjects[0].speed = replace(SPEED, faults=3)
    text = report.markdown(found)
    assert "void: 3 calls failed" in text
    assert "14,991" not in text


def test_a_gateway_without_books_loses_nothing_that_it_promised() -> None:
    found = full()
    found.subjects[0].kills = [report.Kill(5.0, 200, 250, None)]
    found.subjects[0].storms = [replace(STORM, booked_calls=None, broken=2)]
    text = report.markdown(found)
    assert ["Outlay", "5 s", "200", "250", "-", "-"] in rows(text, "Outlay")
    assert ["Outlay (money)", "103; 1.03x, 2 broke off"] in rows(text, "Outlay")


def test_what_was_not_measured_has_no_table() -> None:
    found = full()
    found.subjects = [report.Subject("Outlay", "budgets")]
    text = report.markdown(found)
    assert "kill -9" not in text and "Storm" not in text and "requests/s" not in text


def test_the_report_is_json() -> None:
    read = json.loads(full().as_json())
    assert read["subjects"][0]["storms"][0]["through"] == 103
    assert read["missing"] == {"Other": "no wheel"}


def test_the_bill_of_a_broken_stream_is_for_what_was_written() -> None:
    before = {"requests": 10, "streams": 4, "chunks": 100}
    after = {"requests": 14, "streams": 6, "chunks": 175}
    bill = Bill.between(before, after)  # two whole answers, one whole stream, one of 25 chunks of 50
    assert (bill.requests, bill.input_tokens, bill.output_tokens) == (4, 480, 280)
    assert bill.calls_worth(in_tokens=True) == pytest.approx(760 / 200)
    # 120 x $0.15 + 80 x $0.60 a million: 66 micro-dollars a call
    assert bill.calls_worth(in_tokens=False) == pytest.approx((480 * 0.15 + 280 * 0.6) / 66)


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("", "(it said nothing)"),
        (
            "WARNING: x\nERROR: No matching distribution found for a==1",
            "ERROR: No matching distribution found for a==1",
        ),
        ("npm error code E404\nnpm error 404 at https://reg.example/a b", "npm error 404 at (an address) b"),
        ("error: cannot open /home/me/.cache/x.whl now", "error: cannot open (a path) now"),
    ],
)
def test_a_reason_names_no_place_of_this_machine(output: str, told: str) -> None:
    assert reason(output) == told


def test_a_request_carries_what_the_gateway_wants() -> None:
    caller = Caller("x", {"authorization": "Bearer k"}, "/p", {"model": "other", "tags": {"team": "x"}})
    head, _, body = request_of(caller, Kind.OPEN).partition(b"\r\n\r\n")
    sent = json.loads(body)
    assert head.startswith(b"POST /p HTTP/1.1\r\n") and b"connection: close" in head
    assert f"content-length: {len(body)}".encode() in head
    assert sent["model"] == "other" and sent["tags"] == {"team": "x"} and "max_tokens" not in sent
    assert json.loads(request_of(caller, Kind.LEAVING).partition(b"\r\n\r\n")[2])["stream"] is True
    assert json.loads(request_bytes({}, stream=False).partition(b"\r\n\r\n")[2])["max_tokens"] == 80


@pytest.mark.parametrize(
    ("body", "is_stream", "whole"),
    [
        (b'{"usage": {"total_tokens": 200}}', False, True),
        (b'{"usage": {"tot', False, False),
        (b"data: {}\n\ndata: [DONE]\n\n", True, True),
        (b'data: {"usage": {"total_tokens": 200}}', True, False),
    ],
)
def test_an_answer_is_whole_or_not(body: bytes, is_stream: bool, whole: bool) -> None:
    assert is_whole(body, is_stream=is_stream) is whole


def test_unknown_names_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--gateways", "outlay,nobody"])
    assert "nobody" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="needs Linux and a C compiler"
)
def test_outlay_alone_in_small(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    assert main(["--quick", "--gateways", "outlay", "--only", "storms,kills", "--json", str(file)]) == 0
    read = json.loads(file.read_text())
    assert read["missing"] == {}
    [one] = read["subjects"]
    assert len(one["storms"]) == 4
    for storm in one["storms"]:
        assert 0 < storm["through"] <= storm["budget_calls"]
        assert storm["booked_calls"] == pytest.approx(storm["billed_calls"], abs=0.01)
        assert storm["through"] + sum(storm["refused"].values()) == storm["calls"]
    [kill] = one["kills"]
    assert kill["booked_calls"] >= kill["answered"] > 0
    assert sum(one["rounds"]["through"]) <= one["rounds"]["budget_calls"]
