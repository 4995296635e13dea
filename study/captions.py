"""What the report says under its figures: what is drawn, and what may be taken from it."""

CURVES = (
    "Thin lines are seeds (means over directions), thick ones their mean; grey, dashed: controls, not perturbed but "
    "given another data order from the fork on; crosses: a child that diverged. Dotted: the threshold. Vertical line "
    "and band: the transition and its interval."
)
OVERVIEW = (
    "Every setting small, on common axes: means over seeds of perturbed children and, grey, of controls; shaded: the "
    "seeds' range. Dotted: the threshold; vertical line: the transition, where located. Titles name what differs."
)
HEATMAP = (
    "Children forked at t₀ compared with their reference at t₁, mean over seeds (of means over directions); figure 3 "
    "of arXiv:2505.13900. Both axes list the steps that were run, evenly spaced whatever their distance. Grey: not "
    "measured (t₁ at or before t₀), or a child that diverged."
)
DOSES = (
    "Each line is one fork step, a mean over seeds, against the magnitude of the push; the shade about the first is "
    "its seeds' range. Diamonds at the right: controls of the same fork step, not perturbed but given another data "
    "order, with their range; grey: the first fork step's control and its range, as far as two runs can part "
    "from there. Dotted: the threshold. A line that is flat below its control doesn't care how small the push is."
)
BOUNDARY = (
    "Critical magnitude ε*(t₀): the size of push at which children begin to disconnect, median over seeds with its "
    "95 % interval. Triangles: outside what was tested (down: children disconnect at the smallest magnitude already; "
    "up: they are connected at the largest). Dotted: the magnitudes tested. A line that rises is an ordinary basin "
    "growing; one at the bottom says that any push is enough."
)
DIVERGENCE = (
    "Distance between child and reference over the steps since the fork, geometric mean over seeds, a line per fork "
    "step; the shade about the first is its seeds' range; grey, dashed: the control of the first. Dash-dotted: the "
    "rate of the growth window there, only where tangent and twins agreed that growth is exponential; elsewhere the "
    "legend says that there is none."
)
PATHS = (
    "Test loss on the straight line from reference (0) to child (1), mean over seeds, a line per fork step; the shade "
    "about the first is its seeds' range; grey, dashed: the control of the first. The barrier is the greatest rise "
    "above the chord between the ends."
)
FOREST = (
    "Points are transitions, medians over seeds, with their 95 % intervals; grey: controls, not perturbed but given "
    "another data order from the fork on. An open arrow: the interval has no end, as past the last fork step nothing "
    "was seen. Where there is no transition, the verdict stands in its place."
)
TREND = (
    "Crossing of every seed that is ever chaotic (triangles: unsettled at the last fork step) over the axis; settings "
    "by colour as far as they go. Line and shade: the fitted power of the axis, with its 95 % interval, through the "
    "middle of the points; other axes that vary are adjusted for in the fit, not in the points."
)
AGREEMENT = (
    "Step of the kernel's own transition over that of the barrier, a point per setting with both intervals of 95 % "
    "over seeds; on the line they coincide, as the paper claims. At the edges: settings that have only one of them."
)
KERNELS = (
    "S = 1 − cosine between the kernels of two checkpoints, mean over seeds; checkpoints are evenly spaced whatever "
    "their steps. Dashed: the transition of the barrier's figure; solid: the kernel's own, where its velocity breaks. "
    "Grey: not finite."
)
LAGS = (
    "Kernel distance between checkpoints some steps apart, over the later one's step, mean over seeds, shaded their "
    "range; figure 5b of arXiv:2505.13900. Lags within a quarter of the one named count. A floor that is the same for "
    "all lags is jitter; curves that stay in their order are a kernel that keeps moving. A shrinking learning rate "
    "alone brings late checkpoints together."
)
VELOCITIES = (
    "Angle between the kernels of neighbouring checkpoints over the gap in steps, a line per seed; hollow: gaps in "
    "which the learning rate is below a tenth of its greatest, left out of the test. Diamonds: a seed's own break; "
    "line and band: the kernel's transition and its interval, where located. Where kernels jitter, a longer gap alone "
    "makes the velocity smaller: a bend where log-spaced checkpoints become linear-spaced is no break, and isn't taken "
    "for one."
)
ANGLES = (
    "Angle between the kernel at τ and later ones, mean over seeds, shaded their range. Dotted: what random walks of "
    "the same steps do on average, in any dimension. Verdicts are those of more than half the seeds."
)
CONE = (
    "Kernels divided by their norms, of one seed, from dark (first) to bright (last), with the smallest cone about the "
    "origin that holds those from a quarter of the run on. Upwards: its axis; across: principal components, so that a "
    "kernel may lie farther from the axis than it looks."
)
LEARNING = (
    "Left axis: train loss on the fixed sample and test loss. Right axis, dashed: test accuracy. A line per seed."
)
SWITCHES = (
    "Test accuracy and test loss at the end of a run whose network is replaced by its first-order expansion at the "
    "switch step and trained on as before. Thin lines are seeds, thick ones their mean, the shade the mean's 95 % "
    "interval (Student's t over seeds). Dashed, with its own shade: the run that never switched; its batch-norm "
    "statistics run on, while those of an expansion are recomputed at its switch and stay. Crosses: a linearised run "
    "that diverged."
)
