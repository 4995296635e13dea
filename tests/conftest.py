"""One thread for all tests, and shapes of our public functions checked while they run."""

import torch
from jaxtyping import install_import_hook

torch.set_num_threads(1)

# All that has to do with tensors. `config` and `transition` are left out: they take ints for floats, as Python does and
# beartype doesn't. The hook is never lifted: modules imported late, inside functions, are checked as well.
CHECKED = ("chaos", "data", "evaluation", "experiment", "lanes", "models", "perturb", "seeding", "training")
install_import_hook([f"twophase.{name}" for name in CHECKED], "beartype.beartype")
