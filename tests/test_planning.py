import itertools

from orchestrator.planning import Capacity, Estimate, halves, packs, resumed, shared, unique, wall_seconds
from orchestrator.trial import Configuration, Pack, Trial


def make_trials(streams=("one", "two"), alphas=(0.1, 0.2), folds=range(3)):
    return [
        Trial(Configuration({"streams": stream, "alpha": alpha}, {"data": "d"}), fold, 0)
        for stream, alpha, fold in itertools.product(streams, alphas, folds)
    ]


def by_streams(trial):
    return trial.configuration.settings["streams"]


def ids(packed):
    return sorted(trial.trial_id for pack in packed for trial in pack.trials)


def test_every_trial_that_is_not_stored_is_in_exactly_one_pack():
    trials = make_trials()
    stored = {trials[0].trial_id, trials[7].trial_id}
    packed = packs(trials, stored, {}, by_streams, 2)
    assert ids(packed) == sorted(t.trial_id for t in trials if t.trial_id not in stored)


def test_a_pack_holds_trials_of_one_key_only():
    for pack in packs(make_trials(), (), {}, by_streams, 1):
        assert len({by_streams(trial) for trial in pack.trials}) == 1


def test_all_folds_of_a_configuration_stay_in_one_pack_on_any_number_of_devices():
    for devices in (1, 2, 3, 8):
        home = {}
        for pack in packs(make_trials(), (), {}, by_streams, devices):
            for trial in pack.trials:
                assert home.setdefault(trial.configuration.configuration_id, pack.pack_id) == pack.pack_id


def test_two_devices_share_a_group_and_one_device_gets_it_whole():
    one_kind = make_trials(streams=("one",))
    assert [len(pack.trials) for pack in packs(one_kind, (), {}, by_streams, 1)] == [6]
    assert [len(pack.trials) for pack in packs(one_kind, (), {}, by_streams, 2)] == [3, 3]


def test_trials_at_different_epochs_are_in_different_packs():
    trials = make_trials(streams=("one",))
    reached = {trials[0].trial_id: 3, trials[1].trial_id: 3, trials[2].trial_id: 1}
    packed = packs(trials, (), reached, by_streams, 1)
    assert {(pack.first_epoch, len(pack.trials)) for pack in packed} == {(3, 2), (1, 1), (0, 3)}
    for pack in packed:
        assert {reached.get(trial.trial_id, 0) for trial in pack.trials} == {pack.first_epoch}


def test_the_same_trials_make_the_same_pack_ids():
    first, again = (packs(make_trials(), (), {}, by_streams, 2) for _ in range(2))
    assert [pack.pack_id for pack in first] == [pack.pack_id for pack in again]


def test_a_complete_store_leaves_nothing_to_run():
    trials = make_trials()
    assert packs(trials, [trial.trial_id for trial in trials], {}, by_streams, 4) == ()


def test_two_cells_that_are_one_configuration_are_trained_once():
    trials = make_trials()
    assert unique(trials + make_trials()) == tuple(trials)


def test_a_trial_id_depends_on_every_setting_input_fold_and_seed_and_on_nothing_else():
    base = Trial(Configuration({"alpha": 0.1, "depth": 40}, {"data": "d"}), 0, 0)
    same = Trial(Configuration({"depth": 40, "alpha": 0.1}, {"data": "d"}), 0, 0)
    others = [
        Trial(Configuration({"alpha": 0.2, "depth": 40}, {"data": "d"}), 0, 0),
        Trial(Configuration({"alpha": 0.1, "depth": 22}, {"data": "d"}), 0, 0),
        Trial(Configuration({"alpha": 0.1, "depth": 40}, {"data": "e"}), 0, 0),
        Trial(Configuration({"alpha": 0.1, "depth": 40}, {"data": "d"}), 1, 0),
        Trial(Configuration({"alpha": 0.1, "depth": 40}, {"data": "d"}), 0, 1),
    ]
    assert base.trial_id == same.trial_id
    assert len({base.trial_id, *(other.trial_id for other in others)}) == 6
    assert len(base.trial_id) == 32  # 128 bits


def test_wall_time_fills_the_device_that_is_free_first():
    estimates = [Estimate(seconds, 0, True) for seconds in (4, 1, 1, 1)]
    assert wall_seconds(estimates, 1) == 7
    assert wall_seconds(estimates, 2) == 4
    assert wall_seconds([], 2) == 0


def test_a_pack_that_does_not_fit_is_cut_by_configuration_until_its_parts_do():
    trials = make_trials(streams=("one",), alphas=range(5))
    packed = packs(trials, (), {}, by_streams, 1, lambda pack: len(pack.trials) <= 7)
    assert ids(packed) == sorted(trial.trial_id for trial in trials)
    assert [len(pack.trials) for pack in packed] == [6, 3, 6]  # of 15, whole configurations of 3 folds
    alone = packs(trials, (), {}, by_streams, 1, lambda pack: False)
    assert [len(pack.trials) for pack in alone] == [3] * 5  # folds are not parted by a plan


def test_halves_keep_configurations_whole_and_part_the_folds_of_one():
    pack = Pack(tuple(make_trials(streams=("one",), alphas=range(3))), 4)
    first, second = halves(pack)
    assert (len(first.trials), len(second.trials), first.first_epoch, second.first_epoch) == (3, 6, 4, 4)
    assert [len(half.trials) for half in halves(first)] == [1, 2]
    (single,) = halves(Pack(first.trials[:1]))
    assert single.trials == first.trials[:1]


def test_a_pack_goes_on_in_parts_by_the_epochs_that_its_trials_have_reached():
    pack = Pack(tuple(make_trials(streams=("one",), alphas=range(3))), 4)
    ids = [trial.trial_id for trial in pack.trials]
    parts = resumed(pack, {**dict.fromkeys(ids[:4], 5), **dict.fromkeys(ids[6:], 2), "another": 1})
    assert [(part.first_epoch, part.trials) for part in parts] == [
        (5, pack.trials[:4]),
        (0, pack.trials[4:6]),
        (2, pack.trials[6:]),
    ]
    assert resumed(pack, dict.fromkeys(ids, 4)) == (pack,)


def test_small_packs_run_side_by_side_as_fill_the_device_and_fit_its_memory():
    def share(trials, capacity, memory=10, count=4):
        pack = Pack(tuple(make_trials(folds=range(trials), streams=("one",), alphas=(1,))))
        return shared(capacity, [pack] * count, [Estimate(1, memory, True)] * count).share

    assert share(1, Capacity("cpu", 1, 2)) == 2
    assert share(1, Capacity("cpu", 1, 8)) == 4  # no more than there are packs
    assert share(3, Capacity("cpu", 1, 8)) == 2
    assert share(60, Capacity("cpu", 1, 8)) == 1
    assert share(1, Capacity("cpu", 1, 4, memory=25)) == 2
    assert share(1, Capacity("cpu", 1, 4, memory=5)) == 1
    assert share(2, Capacity("gpu", 2, 8, memory=1000)) == 2
    assert share(60, Capacity("gpu", 2, 8, memory=1000)) == 1
    assert Capacity("cpu", 1, 8, share=3).threads == 2
