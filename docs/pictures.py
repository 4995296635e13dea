"""Draws docs/paths.png from the study `quick`: `python docs/pictures.py runs/quick`."""

import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

import results


def draw(study: results.Study) -> None:
    """The test loss on the straight line from the reference to children of several fork steps."""
    wanted = [("model", "==", "mlp"), ("seed", "==", 0), ("perturbation", "==", "gaussian"), ("direction", "==", 0)]
    path = study.table("path", filters=wanted)
    path = path[path["magnitude"] == path["magnitude"].max()]
    steps = sorted(path["fork_step"].unique())
    colours = mpl.colormaps["viridis"].resampled(len(steps))
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for i, step in enumerate(steps):
        line = path[path["fork_step"] == step].sort_values("alpha")
        axes.plot(line["alpha"], line["test_loss"], color=colours(i), marker="o", markersize=3, label=f"fork {step}")
    axes.set(xlabel="place on the line: 0 reference, 1 child", ylabel="test loss, nats")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=2)
    figure.savefig(Path(__file__).parent / "paths.png", dpi=130)


if __name__ == "__main__":
    draw(results.open(sys.argv[1]))
