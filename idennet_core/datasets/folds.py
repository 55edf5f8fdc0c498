"""Cross-validation folds: by subject, never by image, so that nobody is both trained on and tested.

A set without subjects has no folds, but its publisher's splits: train, test, and valid, which is neither.
"""

from collections.abc import Iterable

NUM_FOLDS = 10


def fold_of(subjects: Iterable[str]) -> dict[str, int]:
    """The fold, 0 to 9, of every subject: the sorted subjects are dealt, `subjects[i::10]` being fold i.

    Repeated names count once. Raises ValueError for fewer subjects than folds.
    """
    ordered = sorted(set(subjects))
    if len(ordered) < NUM_FOLDS:
        raise ValueError(
            f"{NUM_FOLDS} folds need at least {NUM_FOLDS} subjects, but there are {len(ordered)}: "
            "use a data set with more people"
        )
    return {subject: position % NUM_FOLDS for position, subject in enumerate(ordered)}


def check_splits(name: str, splits: Iterable[str]) -> None:
    """Raise ValueError for a data set that cannot do without folds: its splits must hold train and test."""
    lacking = sorted({"train", "test"} - set(splits))
    if lacking:
        raise ValueError(
            f"without folds a study trains and tests on the publisher's splits, {name} has no split "
            f"{' and no split '.join(lacking)}; set folds: all"
        )
