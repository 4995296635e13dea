"""Made `tests/twophase/aft_reference.json`: what lifelines says of the same censored times.

lifelines may hold pandas below 3, so it is no dependency; run this in an environment of its own:
`python -m venv aft && aft/bin/pip install lifelines && aft/bin/python benchmarks/lifelines_reference.py`
"""

import json
from pathlib import Path

import lifelines
import numpy as np
import pandas as pd

FILE = Path(__file__).parent.parent / "tests" / "twophase" / "aft_reference.json"
GRID = np.array([0, 10, 25, 50, 100, 200, 400], dtype=float)


def made_times() -> pd.DataFrame:
    """Sixty times that follow a line in two covariates: most between two looks, a fifth seen, some past the last."""
    rng = np.random.default_rng(7)
    octaves, depth = rng.integers(-2, 3, 60).astype(float), rng.integers(0, 4, 60).astype(float)
    times = np.exp(4.6 + 0.5 * octaves + 0.2 * depth + 0.5 * rng.normal(size=60)).round(3)
    cell = np.searchsorted(GRID, times)
    low, high = GRID[cell - 1], np.append(GRID, np.inf)[cell]
    is_seen = (np.arange(60) % 5 == 0) & np.isfinite(high)
    return pd.DataFrame(
        {
            "octaves": octaves,
            "depth": depth,
            "low": np.where(is_seen, times, low),
            "high": np.where(is_seen, times, high),
        }
    )


def main() -> None:
    data = made_times()
    model = lifelines.LogNormalAFTFitter().fit_interval_censoring(data, "low", "high")
    mean = model.params_["mu_"]
    is_seen = data["low"] == data["high"]
    written = {
        "made_by": f"benchmarks/lifelines_reference.py with lifelines {lifelines.__version__}",
        "data": {name: ["inf" if np.isinf(v) else v for v in data[name].tolist()] for name in data},
        "coefficients": {name: float(mean[name]) for name in ("Intercept", "octaves", "depth")},
        "scale": float(np.exp(model.params_["sigma_"]["Intercept"])),
        # Of log times, as ours: the density of T is that of log T over T.
        "log_likelihood": float(model.log_likelihood_ + np.log(data.loc[is_seen, "low"]).sum()),
    }
    FILE.write_text(json.dumps(written) + "\n", encoding="utf-8")
    print(written["coefficients"], written["scale"], written["log_likelihood"])


if __name__ == "__main__":
    main()
