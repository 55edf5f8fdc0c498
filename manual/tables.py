"""The reference of the result tables, from the schemas by which they are written."""

from idennet_core.config import HEAD_DEFAULTS
from manual.markdown import code, table, text
from orchestrator import rows

MEANINGS = {
    "trial_id": "The trial: a hash of all that decides its result.",
    "configuration_id": "The configuration: the trial without fold and seed.",
    "data_id": "The prepared pictures: a hash of them and of how they were prepared.",
    "dataset": "The name of the data set.",
    "synthetic": "Whether the data is drawn, or the accuracies are simulated.",
    "trunk_ids": "The pre-trained trunks that the trial read.",
    "fold": "The fold it is scored by, 0 to 9; empty for a publisher's own split.",
    "without": "In a search, a fold that the trial neither trained on nor is scored by; it is tested on it later.",
    "seed": "Of initial weights, order, dropout and supervised identities.",
    "state": "complete, failed or pruned.",
    "reason": "Why it failed or was pruned.",
    "trained_epochs": "Epochs that were trained.",
    "accuracy": "The share of test frames that are right.",
    "sequence_accuracy": "The share of test sequences that are right, by the mean probability of their frames.",
    "validation_accuracy": "The same where a trial did without another fold: it has this and no accuracy.",
    "n_train": "Training examples, before augmentation.",
    "n_test": "Test examples.",
    "seconds": "The trial's share of the time of its pack.",
    "pack_id": "The pack it was trained in, which is the name of the file.",
    "device": "cpu or gpu.",
    "host": "The machine.",
    "started_at": "When the pack started.",
    "finished_at": "When the pack ended.",
    "version": "Of idenctl.",
    "epoch": "From 0.",
    "lr": "Learning rate at the end of the epoch.",
    "loss": "Mean training loss: the sum of the two below.",
    "emotion_loss": "The expression's part.",
    "identity_loss": "The identity's part.",
    "train_accuracy": "The share of training examples that were right as they were trained on.",
    "test_accuracy": "The share of test examples that are right after the epoch.",
    "subject": "The person.",
    "sequence": "The sequence the frame is of.",
    "frame": "The frame.",
    "label": "The true class.",
    "probabilities": "Of each class, in the order of classes.",
    "classes": "The classes' names.",
}


def page() -> str:
    """Every column of every table; KeyError where one is not described above."""
    return "\n".join(_table(name) for name in reversed(rows.TABLES))


def _table(name: str) -> str:
    columns = [(code(c.name), text(str(c.type)), text(MEANINGS[c.name])) for c in rows.EMPTY[name].schema]
    if name == "trials":
        place = 1 + [column for column, *_ in columns].index(code("trunk_ids"))
        settings = ", ".join(map(code, HEAD_DEFAULTS))
        what = f"A column a setting of the workload, empty where it cannot matter; of IDEnNet: {settings}."
        columns.insert(place, ("*settings*", "of its default", what))
    return f"## `{name}/`\n\n{table(('column', 'type', 'meaning'), columns)}"
