"""An answer that hangs in a worker, which no real one does: for the tests of what ends it."""

import signal

from sfpo.rewards import math_answer

HANG = r"\sqrt{2}+999"
_equivalent = math_answer._equivalent


def equivalent_or_hang(answers, golds, time_limit_seconds):
    if answers[0].startswith(HANG):
        signal.setitimer(signal.ITIMER_PROF, time_limit_seconds)
        while True:
            pass
    return _equivalent(answers, golds, time_limit_seconds)
