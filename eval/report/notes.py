"""Words that several tables have in common: what one training seed can tell, and for what number of seeds p-values hold."""

from __future__ import annotations

from sfpo.settings import ReportSettings


def one_seed(settings: ReportSettings) -> list[str]:
    """Stands above a table with a single training seed; nothing where there are several."""
    return [ONE_SEED_ABOVE] if len(settings.seeds) == 1 else []


ONE_SEED_ABOVE = (
    "ONE TRAINING SEED. This can tell how accurate these very runs are, within intervals over problems. It cannot tell which "
    "method is better: the same method with another seed often differs by as much. So gains between arms have no interval, and "
    "nothing is tested or marked. `python -m eval.power` says how many seeds find a gain of a given size."
)


def seeds_fixed_beforehand(settings: ReportSettings) -> list[str]:
    """A warning for several seeds: their number is not to depend on what they showed."""
    if len(settings.seeds) == 1:
        return []
    return [
        "These hold for a number of seeds that was fixed before the runs. Adding seeds until something is significant finds "
        "differences that are not there: to look more than once, divide 5% by the number of looks."
    ]


def samples_text(settings: ReportSettings, letter: str = "k") -> str:
    """'4', or 'k' where benchmarks have different numbers of samples."""
    numbers = set(settings.samples.values())
    return str(*numbers) if len(numbers) == 1 else letter
