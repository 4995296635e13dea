"""Kernels by neural-tangents, in a Python of its own: it is no dependency of ours, and needs an old jax.

    python3.11 -m venv ENV
    ENV/bin/pip install 'jax==0.4.25' 'jaxlib==0.4.25' 'numpy<2' 'scipy<1.13' 'neural-tangents==0.6.5' 'tf2jax==0.3.6'
    python -m benchmarks.kernels --neural-tangents ENV/bin/python

`benchmarks.kernels` runs this file by that interpreter, once per case and implementation (Novak, Sohl-Dickstein,
Schoenholz 2022, arXiv:2206.08720), with a `.npz` that holds weights, inputs and what to compute. It writes the kernel
beside the file, tells what compiling and one run took, and then computes the kernel again, and tells the processor
time, for every line that it is sent.
"""

import os

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import json
import sys
import time

import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
from jax import lax

EPSILON = 1e-5
IMPLEMENTATIONS = {
    "Jacobian contraction": nt.NtkImplementation.JACOBIAN_CONTRACTION,
    "structured derivatives": nt.NtkImplementation.STRUCTURED_DERIVATIVES,
    "NTK-vector products": nt.NtkImplementation.NTK_VECTOR_PRODUCTS,
}


def conv(x, weight, stride):
    """A convolution of kernel h × w, padded as torch pads it, channels first."""
    height, width = weight.shape[2:]
    padding = [(height // 2, height // 2), (width // 2, width // 2)]
    return lax.conv_general_dilated(x, weight, stride, padding, dimension_numbers=("NCHW", "OIHW", "NCHW"))


def norm(x, params, fixed, name):
    """Batch normalisation in evaluation mode."""
    mean, variance = (fixed[f"{name}.running_{what}"][:, None, None] for what in ("mean", "var"))
    weight, bias = (params[f"{name}.{what}"][:, None, None] for what in ("weight", "bias"))
    return (x - mean) / jnp.sqrt(variance + EPSILON) * weight + bias


def linear(x, params, name):
    """A dense layer."""
    return x @ params[f"{name}.weight"].T + params[f"{name}.bias"]


def mlp(params, _, x, leaves):
    """The zoo's MLP."""
    x = x.reshape(len(x), -1)
    for i in range(leaves["depth"]):
        x = jax.nn.relu(linear(x, params, f"hidden.{i}"))
    return linear(x, params, "head")


def cnn(params, fixed, x, leaves):
    """The zoo's CNN, in one dimension."""
    x = x[:, :, None]
    for i in range(leaves["depth"]):
        x = jax.nn.relu(norm(conv(x, params[f"convs.{i}.weight"], (1, 2 - i % 2)), params, fixed, f"norms.{i}"))
    return linear(x.mean((2, 3)), params, "head")


def resnet(params, fixed, x, leaves):
    """The zoo's ResNet with shortcuts A, in two dimensions."""
    x = jax.nn.relu(norm(conv(x, params["stem.weight"], (1, 1)), params, fixed, "norm"))
    for i in range((leaves["depth"] - 2) // 2):
        name = f"blocks.{i}"
        weight = params[f"{name}.conv1.weight"]
        stride = weight.shape[0] // weight.shape[1]
        y = jax.nn.relu(norm(conv(x, weight, (stride, stride)), params, fixed, f"{name}.norm1"))
        y = norm(conv(y, params[f"{name}.conv2.weight"], (1, 1)), params, fixed, f"{name}.norm2")
        new = weight.shape[0] - weight.shape[1]
        shortcut = jnp.pad(x[:, :, ::stride, ::stride], ((0, 0), (new // 2, new - new // 2), (0, 0), (0, 0)))
        x = jax.nn.relu(y + shortcut)
    return linear(x.mean((2, 3)), params, "head")


def vgg(params, fixed, x, leaves):
    """The zoo's VGG, in two dimensions."""
    for stage, count in enumerate(leaves["stages"]):
        for i in range(0, 2 * count, 2):
            y = conv(x, params[f"stages.{stage}.{i}.weight"], (1, 1))
            x = jax.nn.relu(norm(y, params, fixed, f"stages.{stage}.{i + 1}"))
        window = (1, 1, min(2, x.shape[2]), min(2, x.shape[3]))
        x = lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")
    return linear(x.mean((2, 3)), params, "head")


NETWORKS = {"mlp": mlp, "cnn": cnn, "resnet": resnet, "vgg": vgg}


def kernel_function(network, fixed, leaves, kind, implementation):
    """(params, inputs) -> the kernel as `twophase.entk` lays it out."""

    def logits(params, x):
        values = network(params, fixed, x, leaves)
        return values.sum(1, keepdims=True) / jnp.sqrt(values.shape[1]) if kind == "pseudo" else values

    axes = (-1,) if kind == "trace" else ()
    function = nt.empirical_ntk_fn(logits, trace_axes=axes, vmap_axes=0, implementation=implementation)

    def kernel(params, x):
        found = function(x, None, params)
        if kind == "trace":  # the mean over logits
            return found * leaves["num_logits"]
        return found.transpose(0, 2, 1, 3).reshape(found.shape[0] * found.shape[2], -1)

    return jax.jit(kernel)


def seconds(run):
    """Processor time."""
    began = time.process_time()
    run()
    return time.process_time() - began


def main():
    """Compute the kernel of one case as often as asked."""
    path = sys.argv[1]
    arrays = dict(np.load(path))
    case = json.loads(str(arrays.pop("case")))
    inputs = jnp.asarray(arrays.pop("inputs"))
    held = {name: jnp.asarray(value) for name, value in arrays.items()}
    fixed = {name: value for name, value in held.items() if "running_" in name}
    params = {name: value for name, value in held.items() if name not in fixed}
    implementation = IMPLEMENTATIONS[sys.argv[2]]
    kernel = kernel_function(NETWORKS[case["model"]], fixed, case["leaves"], case["kind"], implementation)

    def run():
        return kernel(params, inputs).block_until_ready()

    compiled = seconds(run)
    np.savez(sys.argv[3], kernel=np.asarray(run()))
    print(json.dumps({"first": compiled, "again": seconds(run)}), flush=True)
    for _ in sys.stdin:
        print(seconds(run), flush=True)


if __name__ == "__main__":
    main()
