"""One thread for all tests, and shapes of our public functions checked while they run."""

import sys
from types import ModuleType

import torch
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

torch.set_num_threads(1)

# The hook wants the checker by its importable name; this one takes ints for floats, as Python does.
checker = ModuleType("twophase_shape_checker")
checker.check = beartype(conf=BeartypeConf(is_pep484_tower=True))
sys.modules[checker.__name__] = checker
# Never lifted: modules imported late, inside functions, are checked as well.
install_import_hook("twophase", f"{checker.__name__}.check")
