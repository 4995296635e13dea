"""How empirical neural tangent kernels are computed, layer by layer or by torch.func, and how many are compared."""
