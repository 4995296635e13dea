"""Rows of tables made by hand."""

import pandas as pd

from study.protocols import protocol_text
from twophase.chaos import INDICATORS
from twophase.config import Protocol, Trial, setting

FORKS = (0, 10, 100)
USUAL = Protocol()
SETTLES = (1.0, 0.4, 0.0)
POINT = setting({"num_steps": 200})
OTHER = setting({"num_steps": 200, "lr": 0.2})


def keys_of(point, seed, protocol=USUAL):
    key = Trial(point, seed, protocol).key
    return {"study": "s", "trial_key": key, "setting_key": point.key, "seed": seed, **point.values()}


def rows_of(
    point, seed, curve, *, kind="gaussian", magnitude=1e-2, direction=0, diverged=(), changed=1.0, protocol=USUAL
):
    shares = changed if isinstance(changed, tuple) else (changed,) * len(curve)
    return [
        {
            **keys_of(point, seed, protocol),
            "perturbation": kind,
            "fork_step": fork,
            "magnitude": magnitude,
            "direction": direction,
            "measure_step": point.num_steps,
            "diverged": fork in diverged,
            "changed_fraction": 0.0 if kind in ("none", "order") else share,
            **dict.fromkeys(INDICATORS, value),
        }
        for fork, value, share in zip(FORKS, curve, shares, strict=True)
    ]


def sentinel(point, seed, *, diverged=False, protocol=USUAL):
    (row, *_) = rows_of(point, seed, (0.0,) * 3, kind="none", magnitude=0.0, protocol=protocol)
    return [{**row, "diverged": diverged}]


def frame(*groups):
    return pd.DataFrame([row for group in groups for row in group])


def healthy(point=POINT, seeds=3, curve=SETTLES, protocol=USUAL, **child):
    return frame(
        *(
            rows_of(point, seed, curve, protocol=protocol, **child) + sentinel(point, seed, protocol=protocol)
            for seed in range(seeds)
        )
    )


def trials_of(*points, seeds=3, protocol=USUAL, status="ok", error="", test_accuracy=0.8):
    return pd.DataFrame(
        [
            {
                **keys_of(point, seed, protocol),
                "status": status,
                "error": error,
                "test_accuracy": test_accuracy,
                "protocol": protocol_text(protocol),
            }
            for point in points
            for seed in range(seeds)
        ]
    )
