"""Notes that several tables share: the limits of one training seed, of p-values, and the number of samples."""

from __future__ import annotations

from sfpo.settings import ReportSettings


def one_seed(settings: ReportSettings) -> list[str]:
    """The warning above a table with a single training seed; empty if there are several."""
    return [ONE_SEED_ABOVE] if len(settings.seeds) == 1 else []


ONE_SEED_ABOVE = (
    "ONE TRAINING SEED. The accuracies of these runs are known up to their intervals over problems, but which method is better "
    "is not: another seed of the same method often differs by as much. So gains between arms have no interval and are not "
    "tested. `python -m eval.power` computes how many seeds are needed to detect a gain of a given size."
)


def seeds_fixed_beforehand(settings: ReportSettings) -> list[str]:
    """The note for several seeds that their number must be fixed before the results are seen."""
    if len(settings.seeds) == 1:
        return []
    return [
        "p-values assume that the number of seeds was fixed before the runs. Adding seeds until something is significant "
        "yields false positives (going from 2 to 8 seeds: in 12 to 16% of simulated suites); with several looks at the "
        "results, divide the 5% by the number of looks."
    ]


def samples_text(settings: ReportSettings, letter: str = "k") -> str:
    """The number of samples per problem, such as '4'; ``letter`` if it differs between benchmarks."""
    numbers = set(settings.samples.values())
    return str(*numbers) if len(numbers) == 1 else letter
