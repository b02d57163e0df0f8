"""`python -m tests.sim SEED STEPS [COUNT]`: play seeds from SEED on; the first broken promise ends it with its story.

`make sim SEED=n STEPS=m [COUNT=k]` is the same. A failing seed is its own reproduction.
"""

import sys
import time
from collections import Counter

from tests.sim.checks import Violation
from tests.sim.world import World


def main() -> int:
    """See the module."""
    first, steps = int(sys.argv[1]), int(sys.argv[2])
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    began = time.monotonic()
    totals: Counter[str] = Counter()
    for seed in range(first, first + count):
        world = World(seed)
        try:
            world.run(steps)
        except Violation as found:
            print("\n".join(world.log))
            print(f"seed {seed}: {found}\nagain: make sim SEED={seed} STEPS={steps}")
            return 1
        totals.update(world.totals())
    if count == 1:
        print("\n".join(world.log))
    told = ", ".join(f"{value} {name}" for name, value in totals.items())
    print(f"{count} seeds of {steps} steps, no violation: {told}; {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
