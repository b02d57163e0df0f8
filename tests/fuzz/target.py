"""The same rule for a coverage-guided fuzzer: `make fuzz`, or `python -m tests.fuzz.target` with libFuzzer's options.

An input is one byte that says how the rest comes in, and the rest: pieces between marks. A finding ends the run: it is
made smaller, printed as a case for `cases`, and its input stays beside the corpus.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["outlay.flow.gateway", "h11"]):
    import h11  # noqa: F401 - its branches guide, too

    from outlay.flow.gateway import bounds, client, shape, upstream  # noqa: F401
    from tests.fuzz import answers, rule
    from tests.fuzz.ours import Answering

from tests.fuzz import answer_messages, cases
from tests.fuzz.choices import Seeded
from tests.fuzz.messages import conversation
from tests.fuzz.mutations import mutated

MARK = b"\xfe\xff"
MAX_BYTES = 2_000
SEEDS = 1_000
CORPUS = Path(__file__).parents[2] / ".fuzz" / "corpus"


def encode(pieces: list[bytes], way: int) -> bytes:
    """An input of these pieces; `way` is its first byte."""
    return bytes([way]) + MARK.join(pieces)


def parts(data: bytes) -> tuple[int, list[bytes]]:
    """The first byte, and the pieces as they come in."""
    way, pieces = data[0], data[1:].split(MARK)
    match way >> 4 & 3:
        case 1:
            pieces = [b"".join(pieces)]
        case 2:
            pieces = [bytes([each]) for each in b"".join(pieces)]
        case 3:
            joined = b"".join(pieces)
            pieces = [joined[at : at + 5] for at in range(0, len(joined), 5)]
    return way, [piece for piece in pieces if piece]


def try_one(data: bytes) -> None:
    """One input, checked on the side that its first byte names."""
    if not data:
        return
    way, pieces = parts(data)
    if way & 1:
        answers.check(pieces, way & 2 != 0)
        return
    answering = Answering((way >> 1) % 3)
    try:
        rule.check(pieces, answering)
    except AssertionError:
        print(f"made smaller: {rule.shrunk(pieces, answering)!r}, {answering}")
        raise


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Half of the time libFuzzer's own change, else one that knows lines and words of HTTP."""
    if seed % 2 or len(data) < 2:
        return bytes(atheris.Mutate(data, max_size))
    return (data[:1] + mutated(Seeded(seed), data[1:]))[:max_size]


def plant() -> None:
    """The first corpus: the known cases, and conversations by grammar."""
    CORPUS.mkdir(parents=True, exist_ok=True)
    known = [*cases.REFUSED.values(), *(pieces for pieces, _ in cases.TAKEN.values())]
    known += [pieces for pieces, _ in cases.BEHIND_A_RUNNING_REQUEST.values()]
    inputs = [encode(list(pieces), 4) for pieces in known]
    for number in range(SEEDS):
        choices = Seeded(("corpus", number))
        is_answer = number % 3 == 0
        pieces = answer_messages.answers(choices) if is_answer else conversation(choices)
        inputs.append(encode(pieces, choices.upto(127) << 1 | is_answer))
    for number, data in enumerate(inputs):
        (CORPUS / f"seed-{number:04}").write_bytes(data[:MAX_BYTES])


def main() -> None:
    """Run until an option of libFuzzer, or a finding, ends it."""
    plant()
    findings = f"-artifact_prefix={CORPUS.parent}/"
    options = [
        findings,
        f"-max_len={MAX_BYTES}",
        "-timeout=10",
        "-print_final_stats=1",
        *sys.argv[1:],
        str(CORPUS),
    ]
    atheris.Setup([sys.argv[0], *options], try_one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
