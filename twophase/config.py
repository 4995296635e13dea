"""Settings: one definition gives YAML keys, `--set`, table columns, defaults and identity."""

import hashlib
import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import cached_property
from typing import Any

from twophase.augmentation import AUGMENTATIONS
from twophase.data import DATA
from twophase.engine import AUTO, LANES, LOOP, auto_engine
from twophase.errors import BadInput, unknown
from twophase.models import ACTIVATIONS, INITS, MODELS
from twophase.optimizers import OPTIMIZERS, Rates
from twophase.schedules import SCHEDULES

Value = str | int | float
NORM_LAYERS = ("none", "batch", "group", "layer")
SHORTCUTS = ("A", "B")
MOST_EXAMPLES = 10_000_000
MOST_STEPS = 100_000_000
MOST_DATA_SEED = 2**32 - 1
"""What numpy's legacy generators take, which some data sets are made by."""
MOST_SEED = 2**63 - 1
"""What a table's column of integers takes."""


@dataclass(frozen=True)
class Leaf:
    """What is known of one leaf of a setting beside its name and type.

    Attributes:
        doc: Its meaning.
        unit: Its unit, or empty.
        choices: The names that would do, for a leaf that is one of a list.
        above: It must be greater than this.
        least: It must be at least this.
        below: It must be smaller than this.
        most: It must be at most this: a larger number is a slip, or more than a generator or a table takes.
        old_value: For a leaf added in a later version: the value that means the old behaviour, left out of the hash.
    """

    doc: str
    unit: str = ""
    choices: Callable[[], Collection[str]] | None = None
    above: float | None = None
    least: float | None = None
    below: float | None = None
    most: int | None = None
    old_value: Value | None = None


def leaf(default: Any, doc: str, **spec: Any) -> Any:
    """Declare one leaf; `MISSING` as default says that data set or model supply it."""
    metadata = {"leaf": Leaf(doc, **spec)}
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One point of the outer axes: everything that determines a run but its seed.

    Make one with `setting`, which fills defaults and checks. What doesn't apply is ``"none"`` or 0.
    """

    data: str = leaf("mnist1d", "data set", choices=lambda: DATA)
    num_train: int = leaf(MISSING, "training examples", unit="examples", least=1, most=MOST_EXAMPLES)
    num_test: int = leaf(MISSING, "test examples", unit="examples", least=1, most=MOST_EXAMPLES)
    data_seed: int = leaf(MISSING, "seed of the data's generator or split", least=0, most=MOST_DATA_SEED)
    model: str = leaf("mlp", "architecture", choices=lambda: MODELS)
    depth: int = leaf(MISSING, "layers, as the architecture counts them", unit="layers")
    width: int = leaf(MISSING, "units of a layer; channels of the first stage", unit="units")
    activation: str = leaf(MISSING, "nonlinearity", choices=lambda: ACTIVATIONS)
    norm_layer: str = leaf(MISSING, "normalisation after each layer", choices=lambda: NORM_LAYERS)
    init: str = leaf(MISSING, "how parameters are drawn", choices=lambda: INITS)
    shortcut: str = leaf(
        MISSING,
        "where a ResNet's channels double: A, zero padding; B, 1×1 convolution (He et al. 2016)",
        choices=lambda: SHORTCUTS,
        old_value="none",
    )
    dropout: float = leaf(
        MISSING, "share of values set to 0 in training, one mask for all lanes", least=0, below=1, old_value=0.0
    )
    patch_size: int = leaf(MISSING, "positions of a ViT's patch in each dimension", unit="positions", old_value=0)
    num_heads: int = leaf(MISSING, "attention heads of a ViT", old_value=0)
    build: str = leaf(MISSING, "function that makes a module of your own, package.module:function", old_value="none")
    build_digest: str = leaf(
        MISSING, "hash of that module's source, filled in; given, the source must have it", old_value="none"
    )
    augmentation: str = leaf(
        "none", "random change of training inputs, one draw per step", choices=lambda: AUGMENTATIONS, old_value="none"
    )
    optimizer: str = leaf("sgd", "update rule", choices=lambda: OPTIMIZERS)
    lr: float = leaf(MISSING, "peak learning rate", above=0)
    momentum: float = leaf(MISSING, "momentum of SGD; β₁ of AdamW", least=0, below=1)
    beta2: float = leaf(MISSING, "β₂ of AdamW", least=0, below=1, old_value=0.0)
    weight_decay: float = leaf(MISSING, "L2 penalty on every parameter; decoupled in AdamW", least=0)
    clip_norm: float = leaf(0.0, "greatest L2 norm of a gradient; 0 for any", least=0, old_value=0.0)
    batch_size: int = leaf(64, "examples of a minibatch", unit="examples", least=1)
    num_steps: int = leaf(2000, "updates of a run", unit="steps", least=1, most=MOST_STEPS)
    schedule: str = leaf("cosine", "how the learning rate goes", choices=lambda: SCHEDULES)
    warmup_steps: int = leaf(0, "steps over which the learning rate rises linearly", unit="steps", least=0, old_value=0)
    milestones: str = leaf("0.5,0.75", "where schedule step decays, as fractions of the run")
    gamma: float = leaf(0.1, "factor at each milestone of schedule step", above=0)
    precision: str = leaf(
        "float32",
        "floating-point type; bfloat16 is float32 with training's forward and backward passes under autocast",
        choices=lambda: ("bfloat16", "float32", "float64"),
    )
    engine: str = leaf(
        LANES,
        "how children are trained: lanes, all at once; loop, one by one; auto is the faster of both by a fixed rule",
        choices=lambda: (AUTO, LANES, LOOP),
    )
    device: str = leaf("cpu", "type of device", choices=lambda: ("cpu", "cuda"))

    @property
    def milestone_fractions(self) -> tuple[float, ...]:
        """Milestones as numbers; empty unless the schedule is ``step``."""
        return () if self.milestones == "none" else tuple(float(part) for part in self.milestones.split(","))

    @property
    def rates(self) -> Rates:
        """What its optimiser needs."""
        return Rates(self.lr, self.momentum, self.beta2, self.weight_decay)

    @cached_property
    def key(self) -> str:
        """The contract's `setting_key`."""
        return digest(self.identity())

    def values(self) -> dict[str, Value]:
        """All leaves by name, in order of definition."""
        return {name: getattr(self, name) for name in LEAVES}

    def identity(self) -> dict[str, Value]:
        """The leaves that enter the hash: all but those at the value that means an older version's behaviour."""
        return {k: v for k, v in self.values().items() if LEAVES[k].old_value is None or v != LEAVES[k].old_value}


LEAVES: dict[str, Leaf] = {f.name: f.metadata["leaf"] for f in fields(Setting)}
TYPES: dict[str, type] = {f.name: f.type for f in fields(Setting) if isinstance(f.type, type)}
DEFAULTS: dict[str, Value] = {f.name: f.default for f in fields(Setting) if f.default is not MISSING}


def _leaves_of(table: Mapping[str, Any]) -> set[str]:
    """Leaves that the entries of a table have.

    Raises:
        TypeError: One is no field of `Setting`: whoever adds a model with a leaf of its own forgot that.
    """
    for entry, spec in table.items():
        for name in spec.defaults:
            if name not in LEAVES:
                raise TypeError(f"'{entry}' has a leaf {name}, which must be a field of twophase.config.Setting, too")
    return {name for spec in table.values() for name in spec.defaults}


_DATA_LEAVES = _leaves_of(DATA)
_MODEL_LEAVES = _leaves_of(MODELS)
_OPTIMIZER_LEAVES = _leaves_of(OPTIMIZERS)
_STEP_LEAVES = {"milestones", "gamma"}
HEAD = ("data", "model", "optimizer", "schedule")
"""Leaves that tell which others mean anything, and their defaults."""


def digest(value: object) -> str:
    """Hash canonical JSON: SHA-256, first 16 hex digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def setting(values: Mapping[str, object]) -> Setting:
    """Make a setting from some of its leaves, the rest by default, and check it whole.

    Args:
        values: Leaves by flat name.

    Returns:
        The setting, every leaf filled in.

    Raises:
        BadInput: A leaf is unknown, of the wrong type or out of range, or doesn't apply to the rest.
    """
    for name in values:
        if name not in LEAVES:
            raise unknown("setting", name, LEAVES, see="docs/settings.md")
    head = {name: coerce(name, values.get(name, DEFAULTS[name])) for name in HEAD}
    defaults = {
        **DEFAULTS,
        **DATA[str(head["data"])].defaults,
        **MODELS[str(head["model"])].defaults,
        **OPTIMIZERS[str(head["optimizer"])].defaults,
    }
    filled: dict[str, Any] = {}
    for name in LEAVES:
        if applies(name, head):
            filled[name] = coerce(name, values[name]) if name in values else defaults[name]
        elif values.get(name, 0) in ("none", 0):
            filled[name] = "none" if TYPES[name] is str else 0
        else:
            owner = _owner(name)
            having = ", ".join(f"'{entry}'" for entry in _owners(name))
            raise BadInput(
                f"{name} does not apply to {owner} '{head[owner]}' (it does to {having}), got {values[name]!r}; "
                "leave it out"
            )
    source, architecture = DATA[str(head["data"])], MODELS[str(head["model"])]
    _check_architecture(filled)
    own = {name: filled[name] for name in architecture.defaults}
    filled |= architecture.settle(own, source.input_shape, source.num_classes)
    if filled["engine"] == AUTO:
        filled["engine"] = auto_engine(
            is_convolutional=architecture.is_convolutional,
            width=filled["width"],
            input_shape=source.input_shape,
            device=filled["device"],
        )
    made = Setting(**{name: TYPES[name](value) for name, value in filled.items()})
    _check_together(made)
    return made


def applies(name: str, head: Mapping[str, Value]) -> bool:
    """Tell whether a leaf means anything for a choice of the leaves of `HEAD`."""
    if name in _DATA_LEAVES:
        return name in DATA[str(head["data"])].defaults
    if name in _MODEL_LEAVES:
        return name in MODELS[str(head["model"])].defaults
    if name in _OPTIMIZER_LEAVES:
        return name in OPTIMIZERS[str(head["optimizer"])].defaults
    return name not in _STEP_LEAVES or head["schedule"] == "step"


def _owner(name: str) -> str:
    """The leaf of `HEAD` that decides whether another means anything."""
    owned = {"schedule": _STEP_LEAVES, "data": _DATA_LEAVES, "model": _MODEL_LEAVES}
    return next((owner for owner, leaves in owned.items() if name in leaves), "optimizer")


def _owners(name: str) -> list[str]:
    """Data sets, models or schedules that have a leaf."""
    if name in _STEP_LEAVES:
        return ["step"]
    tables: list[Mapping[str, Any]] = [DATA, MODELS, OPTIMIZERS]
    return [entry for table in tables for entry in sorted(table) if name in table[entry].defaults]


def coerce(name: str, value: object) -> Value:
    """Check one leaf's value by itself and give it its type.

    Raises:
        BadInput: It has the wrong type or breaks the leaf's own rule.
    """
    spec, kind = LEAVES[name], TYPES[name]
    if name == "milestones":
        return _milestones(value)
    if kind is str:
        if not isinstance(value, str):
            known = f"; known: {', '.join(sorted(spec.choices()))}" if spec.choices else ""
            raise BadInput(f"{name} must be a word, got {value!r}{known}")
        if spec.choices and value not in spec.choices():
            raise unknown(name, value, spec.choices())
        return value
    number = _number(name, value, is_integer=kind is int)
    for rule, is_kept in _rules(spec, number):
        if not is_kept:
            raise BadInput(f"{name} must be {rule}, got {value}")
    return number


def _number(name: str, value: object, *, is_integer: bool) -> int | float:
    what = "an integer" if is_integer else "a finite number"
    if isinstance(value, list | tuple):
        raise BadInput(f"{name} must be {what}, got the list {list(value)}; to sweep it, use axes.{name}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadInput(f"{name} must be {what}, got {value!r}")
    if not is_finite(value) or (is_integer and value != int(value)):
        raise BadInput(f"{name} must be {what}, got {value}")
    return int(value) if is_integer else float(value)


def is_finite(value: float) -> bool:
    """Tell whether a number is one that a float can hold: no infinity, no NaN, no integer of hundreds of digits."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _rules(spec: Leaf, number: float) -> list[tuple[str, bool]]:
    rules = []
    if spec.above is not None:
        rules.append((f"> {spec.above:g}", number > spec.above))
    if spec.least is not None:
        rules.append((f">= {spec.least:g}", number >= spec.least))
    if spec.below is not None:
        rules.append((f"< {spec.below:g}", number < spec.below))
    if spec.most is not None:
        rules.append((f"<= {spec.most:,}", number <= spec.most))
    return rules


def _milestones(value: object) -> str:
    """Give milestones their canonical text, ``0.5,0.75``."""
    parts: Any = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    if value == "none":
        return "none"
    try:
        if not all(str(part).isascii() for part in parts):
            raise ValueError("digits of another script")
        numbers = [float(part) for part in parts]
    except (TypeError, ValueError, OverflowError):
        raise BadInput(f"milestones must be fractions of the run such as [0.5, 0.75], got {value!r}") from None
    if not numbers or not all(0 < number < 1 for number in numbers) or sorted(set(numbers)) != numbers:
        raise BadInput(f"milestones must be ascending fractions between 0 and 1, got {value!r}")
    return ",".join(f"{number:g}" for number in numbers)


def _check_architecture(values: Mapping[str, Value]) -> None:
    """Check leaves against what their model takes."""
    model = str(values["model"])
    for name, numbers in MODELS[model].ranges.items():
        if values[name] not in numbers:
            raise BadInput(f"{name} of model '{model}' must be {one_of(numbers)}, got {values[name]}")
    for name, known in MODELS[model].choices.items():
        if values[name] not in known:
            raise BadInput(f"{name} of model '{model}' must be one of {', '.join(known)}, got {values[name]!r}")


def _check_together(made: Setting) -> None:
    """Check what several leaves say together."""
    source = DATA[made.data]
    total = made.num_train + made.num_test
    if source.max_examples and total > source.max_examples:
        raise BadInput(
            f"num_train + num_test must be <= {source.max_examples} for data '{made.data}', "
            f"got {made.num_train} + {made.num_test} = {total}"
        )
    for name, most in (("num_train", source.max_train), ("num_test", source.max_test)):
        if most and getattr(made, name) > most:
            raise BadInput(f"{name} must be <= {most:,} for data '{made.data}', got {getattr(made, name):,}")
    if made.optimizer == "nesterov" and made.momentum == 0:
        raise BadInput("momentum must be > 0 with optimizer 'nesterov', got 0")
    if made.warmup_steps >= made.num_steps:
        raise BadInput(f"warmup_steps must be < num_steps ({made.num_steps}), got {made.warmup_steps}")
    if made.batch_size > made.num_train:
        raise BadInput(f"batch_size must be <= num_train ({made.num_train}), got {made.batch_size}")
    if made.norm_layer == "batch" and made.batch_size == 1:
        raise BadInput("batch_size must be >= 2 with norm_layer 'batch', got 1")


def one_of(values: Sequence[int]) -> str:
    """Say which integers would do."""
    if not isinstance(values, range):
        return f"one of {', '.join(map(str, values))}"
    if values.step == 1:
        return f"an integer from {values[0]} to {values[-1]}"
    return f"{values.step}n + {values[0] % values.step} from {values[0]} to {values[-1]}"


@dataclass(frozen=True)
class Protocol:
    """How a trial is measured; part of its identity.

    Attributes:
        train_sample: Training examples that train losses, train barriers and batch-norm statistics are computed on.
        path_points: Points on the straight line between child and reference, ends included.
        probe_size: Training inputs that kernels are computed on.
        probe_seed: Seed of their choice, and of random projections.
        alignment: Whether barriers are measured once more with the child's units renumbered to match the reference's.
        sharpness: Whether the learning curve has the sharpness of the reference.
        growth_window: Steps over which growth is followed.
        growth_burn_in: Steps of it before growth counts towards a rate.
        growth_low: Smaller magnitude of a twin, relative to the parameters.
        growth_high: Larger magnitude.
    """

    train_sample: int = 2048
    path_points: int = 11
    probe_size: int = 128
    probe_seed: int = 0
    alignment: bool = False
    sharpness: bool = False
    growth_window: int = 200
    growth_burn_in: int = 50
    growth_low: float = 1e-6
    growth_high: float = 1e-4

    def identity(self) -> dict[str, Value]:
        """What enters the hash: what was added later only at another value than its default."""
        values, default = asdict(self), asdict(Protocol())
        return {k: v for k, v in values.items() if k in ("train_sample", "path_points") or v != default[k]}


@dataclass(frozen=True)
class Trial:
    """One setting, one seed, one way of measuring."""

    setting: Setting
    seed: int
    protocol: Protocol = Protocol()

    @cached_property
    def key(self) -> str:
        """The contract's `trial_key`: never depends on lists of fork steps, magnitudes, directions or probe steps."""
        return digest({"setting": self.setting.identity(), "seed": self.seed, "protocol": self.protocol.identity()})
