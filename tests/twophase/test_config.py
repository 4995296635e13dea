"""Identity of settings and trials, and what a user is told about a value that won't do."""

import dataclasses
from functools import partial

import pytest

from twophase import config
from twophase.config import LEAVES, Leaf, Protocol, Setting, Trial, coerce, setting
from twophase.engine import auto_engine
from twophase.errors import BadInput
from twophase.models import MODELS

# Stores on people's disks go by these: a change of them orphans every old study.
GOLDEN_SETTING_KEY = "cfe5af5224cd71fd"
GOLDEN_TRIAL_KEY = "dc7665e0f2b05004"

OTHER = {
    "data": "digits", "num_train": 3999, "num_test": 999, "data_seed": 43, "model": "cnn", "depth": 4, "width": 63,
    "activation": "gelu", "norm_layer": "batch", "init": "torch", "lr": 0.2, "momentum": 0.8, "weight_decay": 0.0,
    "batch_size": 32, "num_steps": 1999, "dropout": 0.5,
    "schedule": "constant", "precision": "float64", "device": "cuda",
}  # fmt: skip


def test_golden_keys():
    assert setting({}).key == GOLDEN_SETTING_KEY
    assert Trial(setting({}), 0).key == GOLDEN_TRIAL_KEY


def test_a_leaf_of_a_model_that_is_declared_nowhere_is_told():
    extended = {"mlp": dataclasses.replace(MODELS["mlp"], defaults={**MODELS["mlp"].defaults, "gate_bias": 1.0})}
    assert config._leaves_of(MODELS) <= set(LEAVES)
    with pytest.raises(TypeError, match=r"'mlp' has a leaf gate_bias, .*twophase\.config\.Setting"):
        config._leaves_of(extended)


def test_every_leaf_enters_the_key():
    made = setting({})
    others = {f.name: "other" if f.type is str else 12345 for f in dataclasses.fields(Setting)}
    keys = {dataclasses.replace(made, **{name: value}).key for name, value in others.items()}
    assert len(keys | {made.key}) == len(LEAVES) + 1


@pytest.mark.parametrize("name", OTHER)
def test_a_leaf_that_a_user_sets_changes_the_key(name):
    made = setting({name: OTHER[name]})
    assert made.values()[name] == OTHER[name]
    assert made.key != setting({}).key


@pytest.mark.parametrize(
    ("name", "value"), [("patch_size", 5), ("num_heads", 2), ("dropout", 0.1), ("norm_layer", "none")]
)
def test_leaves_of_a_vit_change_its_key(name, value):
    assert setting({"model": "vit", name: value}).key != setting({"model": "vit"}).key


@pytest.mark.parametrize(("name", "value"), [("milestones", [0.2]), ("gamma", 0.5)])
def test_leaves_of_the_step_schedule_change_its_key(name, value):
    assert setting({"schedule": "step", name: value}).key != setting({"schedule": "step"}).key


def test_the_default_given_is_the_default_left_out():
    made = setting({})
    assert setting(made.values()) == made
    for name, value in made.values().items():
        assert setting({name: value}).key == made.key


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ({"lr": 0.1}, {"lr": 1e-1}),
        ({"lr": 1}, {"lr": 1.0}),
        ({"width": 32}, {"width": 32.0}),
        ({"num_steps": 1000}, {"num_steps": 1e3}),
        ({"weight_decay": 0}, {"weight_decay": 0.0}),
        ({"schedule": "step", "milestones": "0.50,0.75"}, {"schedule": "step", "milestones": [0.5, 0.75]}),
        ({"schedule": "step", "gamma": 1}, {"schedule": "step", "gamma": 1.0}),
        ({"schedule": "cosine"}, {"gamma": 0}),
        ({"schedule": "cosine"}, {"milestones": "none"}),
    ],
)
def test_ways_to_write_the_same_value(one, same):
    assert setting(one).key == setting(same).key
    assert setting(one).values() == setting(same).values()


def test_order_of_leaves_does_not_matter():
    leaves = {"lr": 0.3, "model": "cnn", "width": 9}
    assert setting(dict(reversed(leaves.items()))).key == setting(leaves).key


def test_types_of_leaves():
    made = setting({"lr": 1, "width": 32.0, "schedule": "step"})
    for name, value in made.values().items():
        assert type(value) is config.TYPES[name]
    assert made.milestone_fractions == (0.5, 0.75)
    assert setting({}).milestone_fractions == ()


def test_a_leaf_at_its_old_value_is_left_out_of_the_hash(monkeypatch):
    made = setting({})
    at_old, at_new = dataclasses.replace(made, momentum=0.9), dataclasses.replace(made, momentum=0.8)
    new_key = at_new.key
    monkeypatch.setitem(LEAVES, "momentum", Leaf("momentum, had it been added later", old_value=0.9))
    assert "momentum" not in at_old.identity()
    expected = {name: value for name, value in made.identity().items() if name != "momentum"}
    assert at_old.key == config.digest(expected) != GOLDEN_SETTING_KEY
    assert at_new.key == new_key
    assert "momentum" in at_old.values()


def test_seed_and_protocol_enter_the_trial_key():
    made = setting({})
    trials = [
        Trial(made, 0),
        Trial(made, 1),
        Trial(setting({"lr": 0.2}), 0),
        Trial(made, 0, Protocol(train_sample=2047)),
        Trial(made, 0, Protocol(path_points=12)),
    ]
    assert len({trial.key for trial in trials}) == len(trials)
    assert Trial(setting({}), 0, Protocol()).key == trials[0].key


BAD = [
    ({"modle": "mlp"}, ["setting", "'modle'", "did you mean 'model'"]),
    ({"model": "cnnn"}, ["model", "'cnnn'", "did you mean 'cnn'", "mlp"]),
    ({"data": "imagenet"}, ["data", "'imagenet'", "digits", "mnist1d"]),
    ({"activation": 3}, ["activation", "3", "gelu"]),
    ({"schedule": "linear"}, ["schedule", "'linear'", "cosine"]),
    ({"init": None}, ["init", "None", "he"]),
    ({"optimizer": "adam"}, ["optimizer", "'adam'", "sgd"]),
    ({"lr": 0}, ["lr", "> 0", "got 0"]),
    ({"lr": -0.1}, ["lr must be > 0, got -0.1"]),
    ({"lr": float("nan")}, ["lr", "finite", "nan"]),
    ({"lr": float("inf")}, ["lr", "finite", "inf"]),
    ({"lr": "fast"}, ["lr", "number", "'fast'"]),
    ({"lr": [0.1, 0.2]}, ["lr", "[0.1, 0.2]", "axes.lr"]),
    ({"lr": True}, ["lr", "True"]),
    ({"lr": None}, ["lr", "None"]),
    ({"momentum": 1}, ["momentum", "< 1", "got 1"]),
    ({"momentum": -1}, ["momentum", ">= 0", "got -1"]),
    ({"weight_decay": -1e-4}, ["weight_decay", ">= 0", "-0.0001"]),
    ({"width": 2.5}, ["width", "integer", "2.5"]),
    ({"width": 0}, ["width", "mlp", "1", "16384", "got 0"]),
    ({"depth": 1000, "model": "cnn"}, ["depth", "cnn", "256", "1000"]),
    ({"num_train": 0}, ["num_train", ">= 1", "got 0"]),
    ({"num_steps": 0}, ["num_steps", ">= 1", "got 0"]),
    ({"data_seed": -1}, ["data_seed", ">= 0", "-1"]),
    ({"batch_size": 4001}, ["batch_size", "4000", "4001"]),
    ({"batch_size": 1, "norm_layer": "batch"}, ["batch_size", ">= 2", "got 1"]),
    ({"norm_layer": "group"}, ["norm_layer", "mlp", "none, batch, layer", "'group'"]),
    ({"model": "vit", "norm_layer": "batch"}, ["norm_layer", "vit", "none, layer", "'batch'"]),
    ({"model": "vit", "width": 10}, ["width", "vit", "multiple of num_heads (4)", "got 10"]),
    ({"model": "vit", "patch_size": 7}, ["patch_size", "vit", "divide", "40 positions", "got 7"]),
    ({"model": "vit", "data": "digits", "patch_size": 3}, ["patch_size", "8×8 positions", "got 3"]),
    ({"model": "vit", "num_heads": 0}, ["num_heads", "vit", "1", "got 0"]),
    ({"patch_size": 4}, ["patch_size does not apply to model 'mlp'", "'vit'"]),
    ({"dropout": 1}, ["dropout must be < 1, got 1"]),
    ({"data": "digits", "num_train": 1500, "num_test": 500}, ["num_train", "num_test", "1797", "2000"]),
    ({"gamma": 0.5}, ["gamma", "schedule", "cosine", "0.5"]),
    ({"milestones": "0.5"}, ["milestones", "schedule", "cosine", "0.5"]),
    ({"schedule": "step", "milestones": [0.75, 0.5]}, ["milestones", "ascending", "[0.75, 0.5]"]),
    ({"schedule": "step", "milestones": "0.5,1.5"}, ["milestones", "0.5,1.5"]),
    ({"schedule": "step", "milestones": "half"}, ["milestones", "'half'"]),
    ({"schedule": "step", "milestones": []}, ["milestones", "[]"]),
    ({"schedule": "step", "gamma": 0}, ["gamma", "> 0", "got 0"]),
    ({"precision": "float16"}, ["precision", "'float16'", "float64"]),
    ({"device": "tpu"}, ["device", "'tpu'", "cpu"]),
    ({"engine": "vmap"}, ["engine", "'vmap'", "lanes", "loop"]),
]


@pytest.mark.parametrize(("values", "parts"), BAD, ids=lambda value: str(value)[:40])
def test_bad_input_is_told_in_one_line(values, parts):
    with pytest.raises(BadInput) as caught:
        setting(values)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


@pytest.mark.parametrize("name", LEAVES)
def test_every_leaf_refuses_what_is_no_value_by_name(name):
    with pytest.raises(BadInput) as caught:
        coerce(name, {"a": 1})
    message = str(caught.value)
    assert message.startswith(name)
    assert "{'a': 1}" in message
    assert "\n" not in message


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        setting({}).lr = 0.5


def test_engine_auto_is_settled_before_anything_is_hashed():
    """A fixed rule: wide convolutions of large images one by one on a CPU, all else in lanes."""
    small = setting({"engine": "auto"})
    assert small.engine == "lanes"
    assert small.key == setting({}).key
    rule = partial(auto_engine, input_shape=(3, 32, 32), device="cpu")
    assert rule(is_convolutional=True, width=16) == "loop"
    assert rule(is_convolutional=True, width=4) == "lanes"
    assert rule(is_convolutional=True, width=4096, input_shape=(3, 40)) == "lanes"
    assert rule(is_convolutional=False, width=4096) == "lanes"
    assert rule(is_convolutional=True, width=64, device="cuda") == "lanes"
    assert sorted(name for name, entry in MODELS.items() if entry.is_convolutional) == ["cnn", "resnet", "vgg"]
