"""A memory of spiking neurons that learns on SpiNNaker 1: store things, recall them, find them, change them.

Expect: 5 of 5 answers are right; a recall answers 6 ms after its cue; under 15 seconds, most of them compiling.
"""

import numpy as np

from neuro.hardware.spinnaker1.ca3 import Memory

THINGS = ("red", "green", "round", "square", "sweet", "sour", "hard", "soft")
CUES = ("apple", "lemon", "brick")
STORED = {"apple": {"red", "round", "sweet"}, "lemon": {"green", "round", "sour"}, "brick": {"red", "square", "hard"}}


def bits(*things: str) -> np.ndarray:
    return np.array([thing in things for thing in THINGS], np.uint8)


def main() -> int:
    memory = Memory(len(CUES), len(THINGS))
    for cue, things in STORED.items():
        memory.learn(CUES.index(cue), bits(*things))
    right = 0

    def say(question: str, answer: set[str], expected: set[str]) -> None:
        nonlocal right
        right += answer == expected
        print(f"{question}: {', '.join(sorted(answer)) or 'nothing'}")

    def of(cue: str) -> set[str]:
        return {thing for thing, on in zip(THINGS, memory.content_of(CUES.index(cue)), strict=True) if on}

    def having(thing: str) -> set[str]:
        return {CUES[k] for k in memory.cues_of(bits(thing))}

    say("the apple is", of("apple"), STORED["apple"])
    say("the brick is", of("brick"), STORED["brick"])
    say("round are", having("round"), {"apple", "lemon"})
    memory.learn(CUES.index("apple"), bits("green", "soft"))
    say("the apple is now", of("apple"), {"green", "soft"})
    say("round is now", having("round"), {"lemon"})
    print(f"{right} of 5 answers are right after {memory.time} ms")
    return right


if __name__ == "__main__":
    main()
