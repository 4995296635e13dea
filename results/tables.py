"""Every table of a study: keys, columns, units and meaning."""

from __future__ import annotations

import math

from results.schema import Column, Table

_PERTURBATION = Column("perturbation", "string", "", "what was done: kind(options); none: sentinel, order: control")
_FORK_STEP = Column("fork_step", "int", "steps", "step t0 at which the child left the reference")
_MAGNITUDE = Column(
    "magnitude",
    "float",
    "1",
    "L2 norm of the perturbation over that of the parameters, unless the perturbation says otherwise; 0: it has none",
)
_DIRECTION = Column("direction", "int", "", "number of the random draw")
_MEASURE_STEP = Column("measure_step", "int", "steps", "step t1 at which child and reference are compared")
_STEP = Column("step", "int", "steps", "number of completed updates, absolute")
_KERNEL = Column("kernel", "string", "", "kind of empirical neural tangent kernel")
_TEST_LOSS = Column("test_loss", "float", "nats", "mean cross-entropy on the test set")
_TEST_ACCURACY = Column("test_accuracy", "float", "1", "share of test examples classified correctly")
_TRAIN_LOSS = Column("train_loss", "float", "nats", "mean cross-entropy on the fixed training sample")
_DISTANCE = Column("distance", "float", "1", "‖θ′ − θ‖, child to reference")

_CHILD = ("perturbation", "fork_step", "magnitude", "direction")
_CHILD_COLUMNS = (_PERTURBATION, _FORK_STEP, _MAGNITUDE, _DIRECTION)

_TRIALS = Table(
    "trials",
    (),
    (
        Column("status", "string", "", "ok, diverged or failed"),
        Column("error", "string", "", "cause of a failure, else empty"),
        Column("is_sentinel_exact", "bool", "", "every sentinel was bitwise equal to the reference; false if unproved"),
        Column("wall_seconds", "float", "s", "time spent, all parts together"),
        Column("lane_steps", "int", "lane-steps", "cost, references, sentinels and padding included"),
        Column("lane_width", "int", "lanes", "greatest number of lanes trained together"),
        _TEST_LOSS,
        _TEST_ACCURACY,
        Column("twophase_version", "string", "", "version of twophase that computed it"),
        Column("torch_version", "string", "", "version of torch that computed it"),
        Column("python_version", "string", "", "version of Python that computed it"),
        Column("device_name", "string", "", "name of the processor or accelerator"),
        Column("num_threads", "int", "threads", "threads of torch"),
        Column("protocol", "string", "", "how it was measured, as JSON; part of the trial's key", fill="unknown"),
    ),
    is_derived=True,
)

_TRAJECTORY = Table(
    "trajectory",
    ("step",),
    (
        _STEP,
        _TRAIN_LOSS,
        _TEST_LOSS,
        _TEST_ACCURACY,
        Column("param_norm", "float", "1", "‖θ‖"),
        Column("learning_rate", "float", "1", "learning rate of the update that leaves this step"),
        Column("sharpness", "float", "1", "greatest eigenvalue of the Hessian of the training loss; NaN unless asked"),
        Column(
            "stability_bound",
            "float",
            "1",
            "sharpness above which descent at this learning rate η diverges on a quadratic: 2 (1 + β) / η, over "
            "1 + 2β with Nesterov's momentum; inf at η = 0, NaN for AdamW",
            fill=math.nan,
        ),
    ),
)

_CHAOS = Table(
    "chaos",
    (*_CHILD, "measure_step"),
    (
        *_CHILD_COLUMNS,
        _MEASURE_STEP,
        Column("reference_digest", "string", "", "hash of the reference's final state in this child's own batch"),
        Column("noise_norm", "float", "1", "L2 norm of the perturbation"),
        Column("layer_noise_min", "float", "1", "least relative norm of the perturbation over the layers"),
        Column("layer_noise_max", "float", "1", "greatest relative norm of the perturbation over the layers"),
        Column("changed_fraction", "float", "1", "share of parameters that the perturbation changed"),
        _DISTANCE,
        Column("relative_distance", "float", "1", "distance over ‖θ‖ of the reference"),
        Column("cosine_dissimilarity", "float", "1", "1 − cos(θ′, θ)"),
        Column("train_barrier", "float", "nats", "greatest rise of the training loss above the chord of the path"),
        Column("test_barrier", "float", "nats", "greatest rise of the test loss above the chord of the path"),
        Column("barrier_over_max", "float", "nats", "greatest rise of the test loss above the worse end of the path"),
        Column("train_error_barrier", "float", "1", "greatest rise of the training error above the chord"),
        Column("test_error_barrier", "float", "1", "greatest rise of the test error above the chord"),
        Column("disagreement", "float", "1", "share of test inputs with different argmax"),
        Column("prediction_distance", "float", "1", "mean total variation between predicted probabilities"),
        Column(
            "angular_cka",
            "float",
            "rad",
            "angle arccos CKA between features that enter the head, on the test set; NaN where no head is known",
            fill=math.nan,
        ),
        Column(
            "aligned_test_barrier",
            "float",
            "nats",
            "test barrier to the child with its units renumbered to match the reference's; NaN unless asked",
            fill=math.nan,
        ),
        Column("diverged", "bool", "", "a loss or parameter of the child is not finite"),
    ),
)

_DIVERGENCE = Table("divergence", (*_CHILD, "step"), (*_CHILD_COLUMNS, _STEP, _DISTANCE))

_PATH = Table(
    "path",
    (*_CHILD, "measure_step", "alpha"),
    (
        *_CHILD_COLUMNS,
        _MEASURE_STEP,
        Column("alpha", "float", "1", "place on the straight path: 0 is the reference, 1 the child"),
        _TRAIN_LOSS,
        _TEST_LOSS,
        Column("train_error", "float", "1", "share of the training sample classified wrongly"),
        Column("test_error", "float", "1", "share of test examples classified wrongly"),
    ),
)

_CONE = Table(
    "cone",
    ("kernel", "step_i", "step_j"),
    (
        _KERNEL,
        Column("step_i", "int", "steps", "step of the first kernel"),
        Column("step_j", "int", "steps", "step of the second kernel"),
        Column("inner_product", "float", "1", "⟨H_i, H_j⟩_F"),
        Column("kernel_distance", "float", "1", "1 − ⟨H_i, H_j⟩_F / (‖H_i‖_F ‖H_j‖_F)"),
    ),
)

_KERNEL_TABLE = Table(
    "kernel",
    ("kernel", "step"),
    (
        _KERNEL,
        _STEP,
        Column("norm", "float", "1", "‖H‖_F"),
        Column("trace", "float", "1", "tr H"),
        Column("effective_rank", "float", "1", "tr² H / ‖H‖²_F"),
        Column("alignment", "float", "1", "ỹᵀHỹ / (‖H‖_F ‖ỹ‖²), ỹ the centred one-hot labels"),
        Column("velocity", "float", "1/step", "kernel distance to the checkpoint before over the gap in steps"),
        *(
            Column(f"eigenvalue_{i}", "float", "1", f"eigenvalue of H, number {i} from the greatest", fill=math.nan)
            for i in range(1, 6)
        ),
    ),
)

_SKETCH = Table(
    "sketch",
    ("kernel", "size", *_CHILD, "step"),
    (
        _KERNEL,
        Column("size", "int", "bins", "numbers in the sketch"),
        *_CHILD_COLUMNS,
        _STEP,
        Column("norm", "float", "1", "‖H‖_F"),
        Column("sketch", "floats", "1", "CountSketch of H / ‖H‖_F; all NaN where H is 0 or not finite"),
    ),
)

_GROWTH = Table(
    "growth",
    ("fork_step", "direction"),
    (
        Column("fork_step", "int", "steps", "step of the reference at which the window begins"),
        _DIRECTION,
        Column("window", "int", "steps", "length of the window"),
        Column("tangent_rate", "float", "1/step", "mean log growth per step of the tangent after the burn-in"),
        Column("twin_rate_low", "float", "1/step", "the same of a renormalised twin at the smaller magnitude"),
        Column("twin_rate_high", "float", "1/step", "the same of a renormalised twin at the larger magnitude"),
        Column("growth_rate", "float", "1/step", "the tangent's rate if growth is exponential, else NaN"),
        Column("is_exponential", "bool", "", "both twins agree with the tangent; if not there is no rate"),
        Column("amplification", "float", "nats", "log growth of the tangent over the whole window"),
        Column(
            "waiting_steps",
            "float",
            "steps",
            "steps until a free twin at the larger magnitude is ten times as far; inf: not in the window",
        ),
        Column("jump", "float", "nats", "greatest log growth of a renormalised twin in 10 steps"),
    ),
)

_SWITCH = Table(
    "switch",
    ("switch_step",),
    (
        Column(
            "switch_step",
            "int",
            "steps",
            "step from which the run is trained on its first-order expansion; num_steps: the unswitched run",
        ),
        Column("train_loss", "float", "nats", "mean cross-entropy of the expansion on the fixed training sample"),
        _TEST_LOSS,
        _TEST_ACCURACY,
        Column("diverged", "bool", "", "a loss or parameter at the end is not finite; losses and accuracy are NaN"),
    ),
)

_TRANSITIONS = Table(
    "transitions",
    ("indicator", "perturbation", "magnitude", "measure", "kernel"),
    (
        Column(
            "indicator",
            "string",
            "",
            "column that is compared with the threshold; one relative to controls, as listed above; or kernel_velocity",
        ),
        _PERTURBATION,
        _MAGNITUDE,
        Column("measure", "string", "", "when it was measured: end, +n after the fork, an absolute step, or none"),
        _KERNEL,
        Column("transition_step", "float", "steps", "median over seeds of the crossing; NaN unless located"),
        Column("ci_low", "float", "steps", "lower end of the interval"),
        Column(
            "ci_high",
            "float",
            "steps",
            "upper end of the interval; inf: beyond the last fork step, where nothing was seen",
        ),
        Column("verdict", "string", "", "located, stable_from_start, chaotic_throughout or undetermined"),
        Column(
            "threshold",
            "float",
            "",
            "value at or below which a child counts as connected; of kernel_velocity the level of its test",
        ),
        Column("is_primary", "bool", "", "the headline declared before running"),
        Column("num_seeds", "int", "seeds", "seeds with a curve"),
        Column("method", "string", "", "how the interval was made"),
        Column("reason", "string", "", "why undetermined, and what the estimate leaves out; else empty", fill=""),
        Column("protocol", "string", "", "protocol of the trials it rests on, as in `trials`", fill="unknown"),
    ),
    identity=("study", "setting_key"),
    is_derived=True,
)

_CONFINEMENT = Table(
    "confinement",
    ("kernel", "tau_step"),
    (
        _KERNEL,
        Column("tau_step", "int", "steps", "checkpoint τ from which on kernels are looked at"),
        Column("num_later", "int", "checkpoints", "checkpoints after τ"),
        Column(
            "half_angle_deg", "float", "degrees", "greatest angle to the mean direction of unit kernels, τ included"
        ),
        Column("cone_half_angle_deg", "float", "degrees", "half-angle of the smallest cone about 0 that holds them"),
        Column("angle_to_end_deg", "float", "degrees", "angle between the kernel at τ and the last"),
        Column("walk_half_angle_deg", "float", "degrees", "median of half_angle_deg over walks of the same steps"),
        Column("p_walk", "float", "1", "share of walks of the same steps, reversed or not, that spread no more"),
        Column("p_walk_3d", "float", "1", "the same for isotropic walks of the same step sizes in 3 dimensions"),
        Column("p_walk_10d", "float", "1", "the same in 10 dimensions"),
        Column("p_walk_100d", "float", "1", "the same in 100 dimensions"),
        Column("walk_dimension", "float", "1", "directions that the steps take up: 1 / mean cos² between them"),
        Column("gamma_step", "float", "1", "γ of angle to τ ∝ lag^γ, lag in steps: 0 jitter, ½ walk, 1 straight"),
        Column("gamma_step_low", "float", "1", "lower end of its 95 % interval; -inf: below jitter's"),
        Column("gamma_step_high", "float", "1", "upper end; inf: beyond a straight path's"),
        Column("gamma_lr", "float", "1", "the same over the lag in summed learning rates"),
        Column("gamma_lr_low", "float", "1", "lower end of its 95 % interval"),
        Column("gamma_lr_high", "float", "1", "upper end"),
        Column(
            "drift_share", "float", "1", "share of the spread that is the axis moving on: 0 jitter, ½ walk, ¾ straight"
        ),
        Column("p_natural", "float", "1", "share of other runs as close to τ; NaN where none were compared"),
        Column("verdict", "string", "", "confined, not_confined or undetermined"),
        Column("reason", "string", "", "what the verdict rests on, in words"),
        Column("input_digest", "string", "", "hash of what the row follows from"),
    ),
    is_derived=True,
)

_BOUNDARY = Table(
    "boundary",
    ("fork_step", "indicator", "perturbation", "measure"),
    (
        _FORK_STEP,
        Column("indicator", "string", "", "column that is compared with the threshold"),
        _PERTURBATION,
        Column("measure", "string", "", "when it was measured: end, +n after the fork, or an absolute step"),
        Column(
            "critical_magnitude",
            "float",
            "1",
            "median over seeds of the magnitude at which children begin to disconnect; NaN if censored",
        ),
        Column("ci_low", "float", "1", "lower end of the interval; 0: below the smallest magnitude tested"),
        Column("ci_high", "float", "1", "upper end of the interval; inf: beyond the largest magnitude tested"),
        Column(
            "censoring",
            "string",
            "",
            "none; left: disconnected at the smallest magnitude; right: connected at the largest; both; undetermined",
        ),
        Column("threshold", "float", "", "value at or below which a child counts as connected"),
        Column("num_seeds", "int", "seeds", "seeds that tell something"),
        Column("num_magnitudes", "int", "magnitudes", "magnitudes tested"),
    ),
    identity=("study", "setting_key"),
    is_derived=True,
)

TABLES: dict[str, Table] = {
    "trials": _TRIALS,
    "trajectory": _TRAJECTORY,
    "chaos": _CHAOS,
    "divergence": _DIVERGENCE,
    "path": _PATH,
    "cone": _CONE,
    "kernel": _KERNEL_TABLE,
    "sketch": _SKETCH,
    "growth": _GROWTH,
    "switch": _SWITCH,
    "transitions": _TRANSITIONS,
    "confinement": _CONFINEMENT,
    "boundary": _BOUNDARY,
}
