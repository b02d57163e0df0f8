"""The simulator finds nothing in the product, and each of twelve bugs that are put into it."""

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.sim.mutations import MUTATIONS, Mutation, first_found
from tests.sim.world import World

ROOT = Path(__file__).parents[2]
STEPS = 40
FIXED = range(25)


def test_fixed_seeds_break_no_promise() -> None:
    totals: Counter[str] = Counter()
    for seed in FIXED:
        world = World(seed)
        world.run(STEPS)
        totals.update(world.totals())
    # the seeds are worth playing: calls are let through and refused, replies lost, processes replaced
    assert totals["billed"] > 100 < totals["calls"] - totals["billed"]
    assert totals["lost replies"] > 10


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_fresh_seeds_break_no_promise() -> None:
    first = int(os.environ.get("OUTLAY_SIM_SEED") or random.SystemRandom().randrange(10**9))
    for seed in range(first, first + 400):
        print(f"make sim SEED={seed} STEPS={STEPS}")
        World(seed).run(STEPS)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_each_planted_bug_is_found(mutation: Mutation) -> None:
    found = first_found(mutation, iter(range(300)), STEPS)
    assert found is not None
    World(found[0]).run(STEPS)  # it was the bug's doing


def test_a_seed_plays_the_same_in_every_process() -> None:
    told = set()
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-m", "tests.sim", "42", str(STEPS)]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        told.add(done.stdout.rpartition(";")[0])
    assert len(told) == 1
