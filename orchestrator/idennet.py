"""IDEnNet as a workload: the only door from studies to networks. Planning a study loads no torch."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from idennet_core import config, cost, sealing
from idennet_core.datasets import prepared
from idennet_core.datasets.folds import check_splits, fold_of
from idennet_core.ids import content_id
from orchestrator import calibration, checkpoints, stacks
from orchestrator.design import Cell, describe
from orchestrator.planning import Estimate
from orchestrator.progress import Progress
from orchestrator.search.pruning import leaving
from orchestrator.store import Store, warn_once
from orchestrator.study import Study
from orchestrator.study_rules import Rules, check_data
from orchestrator.trial import Configuration, Pack, Predictions, Setting, Trial, TrialResult
from orchestrator.workload import Configured, Context

if TYPE_CHECKING:
    from idennet_core.network import Trunk
    from idennet_core.training import EpochRecord, Member

NAMELESS = ("ferplus",)  # data sets that name nobody: they have no folds, and no identity loss
FOR_TRUNKS = ("casia-webface",)  # data sets without expressions
EXPRESSIONS = ("neutral", "anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")
REPORT_EVERY = 1.0  # seconds between two progress events of a pack


def _flops(configuration: Configuration) -> float:
    """What one picture's way through trunks and head takes."""
    settings: dict[str, Any] = dict(configuration.settings)
    return float(cost.inference_flops(settings, len(config.tasks(settings["variant"]))))


class Idennet:
    """IDEnNet as a workload: a pack is a feature bank and the heads that learn from it."""

    rules = Rules(
        config.HEAD_DEFAULTS,
        config.DATASETS,
        config.complete,
        config.TRUNK_DEFAULTS,
        EXPRESSIONS,
        {"flops": _flops},
        config.MEANINGS,
        config.CHOICES,
    )

    def __init__(self, store: Store) -> None:
        self.store = store

    def configure(self, study: Study, cells: Sequence[Cell]) -> Configured:
        """The configurations on the data that lies in the store, and the trunks that the store lacks.

        Raises FileNotFoundError or ValueError where a prepared set is missing or cannot be studied.
        """
        facts = cache(partial(_metadata, self.store))  # each set's once, not for each cell
        if study.dataset in FOR_TRUNKS:  # said before anybody prepares it for nothing
            check_data(study, (), ())
        data = facts(study.dataset)
        check_data(study, data["classes"], data["subjects"])
        if study.folds == [None]:
            check_splits(study.dataset, prepared.splits(self.store.fetch("data", study.dataset, prepared.INDEX).parent))
        else:
            fold_of(data["subjects"])
        found, needed, tasks = [], {}, set[str]()
        for cell in cells:
            settings = config.canonical(cell.settings)
            if settings["variant"] in ("i", "if") and not data["subjects"]:
                raise ValueError(
                    f"the identity loss needs subjects, {study.dataset} has none, got the cell {describe(cell.label)}; "
                    "keep the variants original and f"
                )
            _check_batch(settings, data)
            inputs = {"data": data["data_id"], "recipe": str(config.RECIPE)}
            for task in config.tasks(str(settings["variant"])):
                tasks.add(task)
                recipe = _trunk_recipe(study, settings, task, facts)
                inputs[f"trunk_{task}"] = content_id(recipe)
                needed[inputs[f"trunk_{task}"]] = recipe
            found.append(Configuration({"dataset": study.dataset, **settings}, inputs))
        missing = {i: recipe for i, recipe in needed.items() if _lacks(self.store, i)}
        learnt = {str(_wanted(study, task)["dataset"]) for task in tasks}
        return Configured(found, any(facts(name)["synthetic"] for name in {study.dataset, *learnt}), missing)

    def pack_key(self, trial: Trial) -> str:
        """Trials share a bank, and the schedule on it."""
        settings, inputs = trial.configuration.settings, trial.configuration.inputs
        names = ("dataset", "epochs", "augment", "bank_seed", "batch_size", *config.ARCHITECTURE)
        shared = {name: settings[name] for name in names} | {"precision": settings.get("precision")}
        return json.dumps([shared, dict(inputs)], sort_keys=True)

    def estimate(self, pack: Pack, device: str, threads: int) -> Estimate:
        """Seconds, from the pace of such packs on this machine; bytes, of the memory model."""
        settings: dict[str, Any] = dict(pack.trials[0].configuration.settings)
        data = _metadata(self.store, settings["dataset"])
        shape = (
            settings, len(config.tasks(settings["variant"])), len(data["classes"]) + len(data["subjects"]),
            data["num_faces"], len(pack.trials),
        )  # fmt: skip
        if device == "gpu":
            taken = cost.device_bytes(*shape, stacks.size(self.store, settings))
        else:
            taken = cost.host_bytes(*shape, threads)
        parts, measured = calibration.pack_seconds(pack, self.store, device, threads)
        return Estimate(sum(parts.values()), sum(taken.values()), measured, parts)

    def calibrate(self, packs: Sequence[Pack], device: str, threads: int) -> None:
        """Measure how fast such packs are on this machine, for `estimate`."""
        calibration.measure_packs(packs, self.store, device, threads)

    def trunk(self, task: str, pack: Pack, faces: prepared.FaceSet) -> "Trunk":
        """The frozen trunk that the pack reads for this task, from the store."""
        from idennet_core import pretraining

        first = pack.trials[0].configuration
        trunk_id = first.inputs[f"trunk_{task}"]
        network = pretraining.load_network(self.store.fetch_all("trunks", trunk_id).parent, trunk_id)
        return pretraining.load_trunk(network, first.settings)

    def members(self, pack: Pack, faces: prepared.FaceSet, width: int, device: Any) -> "list[Member]":
        """A member for each trial as it starts; `width` is that of a trunk's maps."""
        from idennet_core import packed, pretraining
        from idennet_core.training import Member

        first = pack.trials[0].configuration
        emotion = pretraining.load_network(self.store.trunks, first.inputs["trunk_emotion"])
        examples = packed.examples(faces, bool(first.settings["augment"]))
        return [
            Member(
                trial.configuration.settings, trial.fold, trial.seed, examples, width, emotion, device, trial.without
            )
            for trial in pack.trials
        ]

    def run(self, pack: Pack, context: Context) -> list[TrialResult]:
        """Build the members, go on from their checkpoints, train, and measure them on their test folds."""
        from idennet_core import packed

        settings: dict[str, Any] = dict(pack.trials[0].configuration.settings)
        device = calibration.place_of(context.device)
        faces = _faces(self.store, pack.trials[0])
        trunks = [self.trunk(task, pack, faces) for task in config.tasks(settings["variant"])]
        members = self.members(pack, faces, trunks[0].out_width, device)
        curves = checkpoints.resume(context.store, pack, members)
        ids = [trial.trial_id for trial in pack.trials]
        heard = {"at": 0.0}
        latest: dict[str, float] = {}
        pruned: dict[str, str] = {}
        at = packed.Progress(0, 0, pack.first_epoch, "bank")

        def tell(points: "Mapping[int, EpochRecord] | None" = None) -> None:
            if points is not None or time.monotonic() - heard["at"] >= REPORT_EVERY:
                heard["at"] = time.monotonic()
                failures = {name: m.failure for name, m in zip(ids, members, strict=True) if m.failure}
                how_far = (at.done, at.total, at.epoch, settings["epochs"], at.stage)
                found = {ids[place]: asdict(record) for place, record in (points or {}).items()}
                takes = {"trunk": at.trunks, "head": at.heads} if at.share else {}
                context.listen(
                    Progress(pack.pack_id, *how_far, dict(latest), failures, dict(pruned), at.share, found, takes)
                )

        def on_progress(progress: packed.Progress) -> None:
            nonlocal at
            at = progress
            tell()

        def prune(epoch: int) -> None:
            for place, reason in _leaving(pack, epoch, members, curves).items():
                members[place].leave()
                curves[place] = curves[place][:epoch]
                pruned[ids[place]] = reason

        def on_epoch(epoch: int, records: "dict[int, EpochRecord]") -> None:
            for place, record in records.items():
                curves[place].append(asdict(record))
                latest[ids[place]] = record.test_accuracy
            prune(epoch + 1)
            checkpoints.write(context.store, pack, members, curves, epoch + 1)
            tell(records)

        for epoch in range(1, pack.first_epoch + 1):  # rungs that were passed before the checkpoint
            prune(epoch)
        began = time.monotonic()
        tested, seconds = packed.train(
            members,
            trunks,
            faces,
            first_epoch=pack.first_epoch,
            device=device,
            threads=1 if context.device == "gpu" else context.threads,
            stack=stacks.chosen(context, members),
            on_progress=on_progress,
            on_epoch=on_epoch,
        )
        epochs = [len(curve[pack.first_epoch :]) for curve in curves]
        share = (time.monotonic() - began) / (sum(epochs) + len(members))  # for an epoch, start and end as another
        results = [
            _result(trial, member, faces, curve, probabilities, pruned.get(trial.trial_id), share * (trained + 1))
            for trial, member, curve, probabilities, trained in zip(
                pack.trials, members, curves, tested, epochs, strict=True
            )
        ]
        for result, member in zip(results, members, strict=True):
            if result.state == "complete" and result.trial.without is None:
                _keep_head(context.store, result.trial, member)
        if pack.first_epoch < settings["epochs"] and not pruned and all(member.failure is None for member in members):
            spent = {"trunk": seconds.trunks, "head": seconds.heads}
            calibration.learn_pack(pack, context.store, context.device, context.threads, spent)
        return results


def _metadata(store: Store, dataset: str) -> dict[str, Any]:
    try:
        return prepared.read_metadata(store.data / dataset)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"the data set {dataset} must be prepared, {store} does not hold it; "
            f"run: idenctl data prepare {dataset} --root DIR --store {store}"
        ) from None


def _lacks(store: Store, trunk_id: str) -> bool:
    """Whether the store has no whole trunk of this id; of a bucket, which keeps its bytes, by its facts alone."""
    folder = store.trunks / trunk_id
    try:
        sealing.trunk_facts(folder) if store.bucket else sealing.trunk(folder)
    except FileNotFoundError:
        return True
    except sealing.Damaged as damage:
        warn_once(f"{damage}: it will be trained anew")
        return True
    return False


def _faces(store: Store, trial: Trial) -> prepared.FaceSet:
    faces = prepared.load(store.fetch_all("data", str(trial.configuration.settings["dataset"])))
    if faces.data_id != trial.configuration.inputs["data"]:
        raise ValueError(f"the faces of {faces.name} changed after the study was planned; run the study again")
    return faces


def _wanted(study: Study, task: str) -> dict[str, Setting]:
    """What the study says of a trunk, over the defaults."""
    return config.complete(study.trunks.get(task, {}), config.TRUNK_DEFAULTS[task])


def _trunk_recipe(
    study: Study, settings: Mapping[str, Setting], task: str, facts: Callable[[str], Mapping[str, Any]]
) -> dict[str, Setting]:
    """What a trunk is trained on and how; `facts` gives a data set's metadata."""
    wanted = _wanted(study, task)
    name = str(wanted["dataset"])
    entry, things = ("classes", "expressions") if task == "emotion" else ("subjects", "subjects")
    never = FOR_TRUNKS if task == "emotion" else NAMELESS  # by name: nobody is to prepare such a set for nothing
    found = 0 if name in never else len(facts(name)[entry])
    if found < 2:
        rule = f"the {task} trunk needs a data set with two {things} or more, {name} has {found or 'none'}"
        raise ValueError(f"{rule}; set dataset under trunks: {task} to another one")
    return config.trunk_recipe(task, settings, wanted, facts(name)["data_id"])


def _check_batch(settings: Mapping[str, Setting], data: Mapping[str, Any]) -> None:
    """Raise ValueError where a batch is more than all that there is, whatever a fold keeps of it for testing."""
    most = data["num_faces"] * (cost.VIEWS if settings["augment"] else 1)
    if int(settings["batch_size"]) > most:
        reason = f"batch_size must not exceed the training pictures, got {settings['batch_size']}"
        raise ValueError(f"{reason} where {data['name']} has {most:,} in all; set a smaller batch_size")


def _leaving(
    pack: Pack, epoch: int, members: "Sequence[Member]", curves: Sequence[Sequence[Mapping[str, Any]]]
) -> dict[int, str]:
    """The places of those that leave the pack after `epoch` epochs, with the reasons."""
    accuracies = {
        trial.trial_id: curve[epoch - 1]["test_accuracy"] if len(curve) >= epoch else math.nan
        for trial, member, curve in zip(pack.trials, members, curves, strict=True)
        if not member.left
    }
    reasons = leaving(pack, epoch, accuracies)
    return {place: reasons[t.trial_id] for place, t in enumerate(pack.trials) if t.trial_id in reasons}


def _keep_head(store: Store, trial: Trial, member: "Member") -> None:
    from idennet_core import checkpoint

    about = {"settings": json.dumps(dict(trial.configuration.settings)), "fold": json.dumps(trial.fold)}
    inputs = {"inputs": json.dumps(dict(trial.configuration.inputs)), "seed": str(trial.seed)}
    path = store.heads / f"{trial.trial_id}.safetensors"
    checkpoint.save(path, member.head.state_dict(), about | inputs)
    store.keep(path)


def _result(
    trial: Trial,
    member: "Member",
    faces: prepared.FaceSet,
    curve: Sequence[Mapping[str, Any]],
    probabilities: "np.ndarray | None",
    pruned: str | None,
    seconds: float,
) -> TrialResult:
    from idennet_core import metrics

    rows = member.test_rows
    accuracy = sequence_accuracy = predictions = None
    if probabilities is not None:
        labels = np.array([faces.classes.index(label) for label in faces.label[rows]])
        accuracy = metrics.accuracy(probabilities, labels)
        if (faces.sequence[rows] != "").all():
            sequence_accuracy = metrics.sequence_accuracy(probabilities, labels, faces.sequence[rows])
        predictions = Predictions(
            subject=faces.subject[rows].tolist(),
            sequence=faces.sequence[rows].tolist(),
            frame=faces.frame[rows].tolist(),
            label=faces.label[rows].tolist(),
            probabilities=probabilities,
            classes=faces.classes,
        )
    return TrialResult(
        trial=trial,
        state="failed" if member.failure else "pruned" if pruned else "complete",
        reason=member.failure or pruned,
        synthetic=faces.synthetic,
        epochs=len(curve),
        accuracy=accuracy,
        sequence_accuracy=sequence_accuracy,
        n_train=member.train_size,
        n_test=len(rows),
        seconds=seconds,
        curve=curve,
        predictions=predictions,
    )
