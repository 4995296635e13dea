"""What a space means: YAML 1.2, ranges, overrides, crossing, defaults; and every preset's contract."""

import math
from copy import deepcopy

import pytest

import search_spaces
from search_spaces.chaos_block import DEFAULT_FORK_STEPS, measure_step
from study.planner import make_plan
from twophase.config import LEAVES
from twophase.errors import BadInput
from twophase.experiment import Child

DIGITS = {"data": "digits", "num_train": 600, "num_steps": 60, "batch_size": 32}


def space(**parts):
    return search_spaces.load({"name": "s", "base": DIGITS, **parts})


def from_yaml(tmp_path, text, pairs=()):
    (tmp_path / "s.yaml").write_text(text)
    return search_spaces.load(tmp_path / "s.yaml", search_spaces.parse_overrides(list(pairs)))


def values(loaded, leaf):
    return [getattr(point, leaf) for point in loaded.settings]


def test_yaml_is_1_2(tmp_path):
    loaded = from_yaml(tmp_path, "name: off\nbase: {lr: 1e-3}\nchaos: {magnitudes: [1e-2, 1E-4]}")
    assert loaded.name == "off"
    assert values(loaded, "lr") == [0.001]
    assert loaded.chaos.magnitudes == (0.01, 0.0001)


def test_yaml_words_of_1_1_are_words(tmp_path):
    for word in ("off", "yes", "no", "on"):
        with pytest.raises(BadInput, match=f"unknown activation '{word}'"):
            from_yaml(tmp_path, f"name: s\nbase: {{activation: {word}}}")


def test_octal_and_sexagesimal_of_yaml_1_1_are_not_read_as_such(tmp_path):
    assert from_yaml(tmp_path, "name: s\nbase: {num_steps: 0100}").settings[0].num_steps == 100
    with pytest.raises(BadInput, match="num_steps"):
        from_yaml(tmp_path, "name: s\nbase: {num_steps: 1:40}")


def test_ranges_are_rounded_to_six_digits():
    assert values(space(axes={"lr": {"range": [0.1, 0.2], "num": 4}}), "lr") == [0.1, 0.133333, 0.166667, 0.2]
    third = 0.03 * (0.3 / 0.03) ** (1 / 3)
    found = values(space(axes={"lr": {"log": [0.03, 0.3], "num": 4}}), "lr")
    assert found == [0.03, 0.0646330, 0.139248, 0.3]
    # Six digits, no more: the unrounded point is another number.
    assert found[1] != third
    assert math.isclose(found[1], third, rel_tol=1e-6)


def test_a_range_and_the_same_numbers_in_a_list_have_one_key():
    ranged = space(axes={"lr": {"log": [0.01, 1], "num": 3}})
    listed = space(axes={"lr": [0.01, 0.1, 1]})
    assert [p.key for p in ranged.settings] == [p.key for p in listed.settings]


def test_integer_ranges_give_integers():
    found = values(space(axes={"width": {"range": [8, 16], "num": 3}}), "width")
    assert found == [8, 12, 16]
    assert all(type(width) is int for width in found)


def test_an_integer_range_too_fine_repeats_a_value():
    with pytest.raises(BadInput, match=r"axes\.depth must not repeat a value"):
        space(axes={"depth": {"range": [1, 2], "num": 4}})


SWEEP = {
    "name": "s",
    "base": {**DIGITS, "lr": 0.5},
    "settings": [{"depth": 2, "momentum": 0.5}, {"depth": 3}],
    "axes": {"width": [8, 16]},
    "chaos": {"fork_steps": [0, 5], "primary": {"threshold": 0.02}},
}


def test_a_flat_override_replaces_axis_and_settings_entries():
    loaded = search_spaces.load(SWEEP, {"width": 4, "momentum": 0.1})
    assert values(loaded, "width") == [4, 4]
    assert values(loaded, "momentum") == [0.1, 0.1]
    assert loaded.axes == ("depth",)


def test_base_is_a_way_to_write_the_flat_name():
    assert search_spaces.load(SWEEP, {"base.width": 4}).settings == search_spaces.load(SWEEP, {"width": 4}).settings


def test_an_axis_override_replaces_base_axis_and_settings_entries():
    assert values(search_spaces.load(SWEEP, {"axes.width": [4]}), "width") == [4, 4]
    assert sorted(values(search_spaces.load(SWEEP, {"axes.lr": [0.1, 0.2]}), "lr")) == [0.1] * 4 + [0.2] * 4
    momenta = values(search_spaces.load(SWEEP, {"axes.momentum": [0.1, 0.2]}), "momentum")
    assert sorted(momenta) == [0.1] * 4 + [0.2] * 4


def test_the_chaos_block_is_overridden_entry_by_entry():
    overrides = {
        "chaos.primary.threshold": 0.1,
        "chaos.controls": 0,
        "seeds": [7],
        "chaos.primary.indicator": "disagreement",
    }
    loaded = search_spaces.load(SWEEP, overrides)
    assert (loaded.chaos.primary.threshold, loaded.chaos.primary.indicator) == (0.1, "disagreement")
    assert (loaded.chaos.controls, loaded.chaos.fork_steps, loaded.seeds) == (0, (0, 5), (7,))


def test_overrides_of_a_block_that_is_not_there_make_it():
    loaded = search_spaces.load({"name": "s"}, {"chaos.primary.threshold": 0.1, "axes.lr": [0.1, 0.2]})
    assert loaded.chaos.primary.threshold == 0.1
    assert loaded.chaos.is_primary_named
    assert values(loaded, "lr") == [0.1, 0.2]


def test_the_caller_s_dict_is_left_alone():
    before = deepcopy(SWEEP)
    search_spaces.load(SWEEP, {"width": 4, "chaos.controls": 0, "axes.lr": [0.1]})
    assert before == SWEEP


def test_set_values_are_yaml():
    parsed = search_spaces.parse_overrides(["lr=1e-3", "chaos.magnitudes=[1e-3]", "chaos.measure_steps=['+20', end]"])
    assert parsed == {"lr": 0.001, "chaos.magnitudes": [0.001], "chaos.measure_steps": ["+20", "end"]}


def test_settings_cross_axes_and_seeds_without_repeats():
    loaded = space(settings=[{"depth": 2}, {"depth": 3, "lr": 0.2}], axes={"width": [8, 16], "momentum": [0, 0.9]})
    points = [(p.depth, p.lr, p.width, p.momentum) for p in loaded.settings]
    assert points == [(d, lr, w, m) for d, lr in ((2, 0.1), (3, 0.2)) for w in (8, 16) for m in (0, 0.9)]
    assert len({trial.key for trial in loaded.trials()}) == 8 * 3
    assert loaded.axes[:2] == ("width", "momentum")
    assert set(loaded.axes) == {"width", "momentum", "depth", "lr"}


def test_leaves_of_base_that_one_schedule_lacks_apply_to_the_other():
    loaded = space(base={**DIGITS, "gamma": 0.5}, axes={"schedule": ["cosine", "step"]})
    assert values(loaded, "gamma") == [0, 0.5]
    assert values(loaded, "milestones") == ["none", "0.5,0.75"]


def test_leaves_of_base_that_apply_to_no_point_are_refused():
    with pytest.raises(BadInput, match="gamma does not apply to schedule 'cosine'"):
        space(base={**DIGITS, "gamma": 0.5})


def test_a_setting_s_own_leaf_that_does_not_apply_is_refused():
    with pytest.raises(BadInput, match="gamma does not apply to schedule 'cosine'"):
        space(settings=[{"schedule": "cosine", "gamma": 0.5}, {"schedule": "step"}])


@pytest.mark.parametrize(("written", "seeds"), [(2, (0, 1)), ([5, 3], (5, 3)), (None, (0, 1, 2))])
def test_seeds(written, seeds):
    assert space(**({} if written is None else {"seeds": written})).seeds == seeds


def test_default_fork_steps_stay_below_each_setting_s_end():
    loaded = space(settings=[{"num_steps": 60}, {"num_steps": 2000}, {"num_steps": 5}])
    forks = [sorted({child.fork_step for child in loaded.chaos.children(point)}) for point in loaded.settings]
    assert forks == [[0, 5, 10, 25, 50], list(DEFAULT_FORK_STEPS), [0]]


def test_measure_steps_as_written():
    point = space().settings[0]
    found = [measure_step(written, 20, point) for written in ("end", "+7", "33", "2ep", "0.5ep")]
    # 600 examples in batches of 32: 18 whole batches an epoch.
    assert found == [60, 27, 33, 36, 9]


def test_children_are_measured_after_their_fork_only():
    chaos = {"fork_steps": [0, 30], "magnitudes": [1e-2], "num_directions": 1, "controls": 1}
    loaded = space(chaos={**chaos, "measure_steps": [20, "+5", "end", "1ep"]})
    children = loaded.chaos.children(loaded.settings[0])
    assert children == {
        Child(0, "gaussian", 0.01, 0): (5, 18, 20, 60),
        Child(0, "order", 0.0, 0): (5, 18, 20, 60),
        Child(30, "gaussian", 0.01, 0): (35, 60),
        Child(30, "order", 0.0, 0): (35, 60),
    }


def test_a_window_compares_every_child_as_long_after_its_fork():
    base = {**DIGITS, "schedule": "constant"}
    chaos = {"fork_steps": [0, 30], "magnitudes": [1e-2], "num_directions": 1, "controls": 0}
    loaded = space(base=base, chaos={**chaos, "window": 20})
    assert set(loaded.chaos.children(loaded.settings[0]).values()) == {(20,), (50,)}
    listed = space(base=base, chaos={**chaos, "measure_steps": ["+20"]})
    assert loaded.chaos.children(loaded.settings[0]) == listed.chaos.children(listed.settings[0])


def test_a_perturbation_without_magnitude_has_one_child_per_draw():
    chaos = {"fork_steps": [0], "magnitudes": [1e-2, 1e-3], "num_directions": 2, "controls": 0}
    head = {"kind": "gaussian", "include": ["head.*"]}
    loaded = space(chaos={**chaos, "perturbation": [head, "ulp"]})
    children = list(loaded.chaos.children(loaded.settings[0]))
    assert len(children) == len(set(children)) == 2 * 2 + 2
    assert [c for c in children if c.perturbation == "ulp"] == [Child(0, "ulp", 0.0, 0), Child(0, "ulp", 0.0, 1)]
    assert {c.perturbation for c in children} == {"gaussian(include=head.*)", "ulp"}
    assert loaded.chaos.perturbations[0] == space(chaos={"perturbation": head}).chaos.perturbations[0]
    assert space(chaos={**chaos, "perturbation": "ulp"}).chaos.magnitudes == (0.0,)


def test_magnitudes_that_single_precision_loses():
    small = {"magnitudes": [1e-2, 1e-7, 1e-9]}
    assert space(chaos=small).caution.startswith("chaos.magnitudes 1e-07, 1e-09: below 1e-06")
    assert "float32; use precision: float64" in space(chaos=small).caution
    assert not space(chaos=small, base={**DIGITS, "precision": "float64"}).caution
    assert not space(chaos={"magnitudes": [1e-6]}).caution
    assert not space(chaos={**small, "perturbation": "gaussian(norm=absolute)"}).caution


def test_a_child_without_any_measure_step_is_not_made():
    loaded = space(chaos={"fork_steps": [0, 30], "measure_steps": [20]})
    assert {child.fork_step for child in loaded.chaos.children(loaded.settings[0])} == {0}


def test_device_auto_is_what_the_caller_says():
    assert values(space(), "device") == ["cpu"]
    assert search_spaces.load({"name": "s"}, device="cuda").settings[0].device == "cuda"
    assert search_spaces.load({"name": "s", "base": {"device": "cpu"}}, device="cuda").settings[0].device == "cpu"


def test_there_are_presets():
    assert {"quick", "digits_stable"} <= set(search_spaces.preset_names())


@pytest.mark.parametrize("name", search_spaces.preset_names())
def test_preset_contract(name):
    if "search" in search_spaces.read_source(name):
        asked = search_spaces.load_search(name)
        loaded = asked.space(asked.examples())
    else:
        loaded = search_spaces.load(name)
    assert loaded.name == name
    assert search_spaces.preset_text(name).startswith("#"), "the first line says what it is for"
    assert len(loaded.seeds) >= 2, "fewer than two seeds locate nothing"
    assert loaded.chaos.controls >= 1
    assert loaded.chaos.is_primary_named
    assert loaded.chaos.primary.magnitude in (None, *loaded.chaos.magnitudes)
    for point in loaded.settings:
        children = loaded.chaos.children(point)
        assert 0 in {child.fork_step for child in children}, "stable_from_start needs fork step 0"
        assert point.num_steps in {step for steps in children.values() for step in steps}
        assert all(getattr(point, leaf) is not None for leaf in LEAVES)
    plan = make_plan(loaded)
    assert len(plan.jobs) == plan.num_trials == len(loaded.settings) * len(loaded.seeds)
    assert len({job.trial.key for job in plan.jobs}) == plan.num_trials
