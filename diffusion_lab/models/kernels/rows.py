"""What is done row by row between matrix products: activation and normalisations, with their gradients."""

import math

import numpy as np

from diffusion_lab.models.feed_forward import A as A64
from diffusion_lab.models.feed_forward import B as B64
from diffusion_lab.models.kernels.loops import LOG2E, F, compiled, exp2
from diffusion_lab.models.normalization import EPS as EPS64

A, B = F(A64), F(B64)  # of `feed_forward`, in single precision
EPS = F(EPS64)
ROWS = 128  # rows in a block whose sums go together
LEAST = 4096  # rows that are worth a thread


@compiled
def gelu(begin, end, hidden, bias, out):
    """Rows of h σ(h (a + b h²)), h = hidden + bias; see `feed_forward`.

    hidden, out (row, channel); bias (channel).
    """
    for r in range(begin, end):
        row, o = hidden[r], out[r]
        for j in range(row.size):
            h = row[j] + bias[j]
            o[j] = h / (F(1) + exp2(min(-LOG2E * h * (A + B * h * h), F(126))))


@compiled
def gelu_backward(begin, end, hidden, bias, grad, out, grad_hidden):
    """`gelu` once more, and grad times its slope σ + h σ (1 − σ) (a + 3b h²), all shaped as hidden."""
    for r in range(begin, end):
        row, g, o, of_hidden = hidden[r], grad[r], out[r], grad_hidden[r]
        for j in range(row.size):
            h = row[j] + bias[j]
            gate = F(1) / (F(1) + exp2(min(-LOG2E * h * (A + B * h * h), F(126))))
            o[j] = h * gate
            of_hidden[j] = g[j] * (gate + h * gate * (F(1) - gate) * (A + F(3) * B * h * h))


@compiled
def head_norm(begin, end, x, low, weight, out, scale):
    """Rows (head·channel) of x·weight·scale, scale (row, head) = 1/√(mean x² + ε); see `normalization`.

    x may be wider: it begins at column `low`.
    """
    width, heads = weight.size, scale.shape[1]
    channels = width // heads
    y = np.empty(width, F)
    for r in range(begin, end):
        row, o = x[r, low:], out[r]
        for j in range(width):
            y[j] = row[j] * row[j]
        for h in range(heads):
            total = F(0)
            for c in range(channels):
                total += y[h * channels + c]
            total = F(1) / F(math.sqrt(total / F(channels) + EPS))
            scale[r, h] = total
            for c in range(channels):
                y[h * channels + c] = total
        for j in range(width):
            o[j] = row[j] * weight[j] * y[j]


@compiled
def head_norm_backward(begin, end, x, low, weight, scale, grad, grad_x, grad_weight):
    """Gradients of blocks of rows; grad_weight (block, head·channel) is that of each block.

    For y = x w r with r the scale: ∂x = ∂y w r − x r³ Σ(∂y w x)/channels, ∂w = Σ ∂y x r.
    """
    width, heads = weight.size, scale.shape[1]
    channels = width // heads
    y, z, total = np.empty(width, F), np.empty(width, F), np.empty(width, F)
    for block in range(begin, end):
        total[:] = 0
        for r in range(block * ROWS, min(len(x), (block + 1) * ROWS)):
            row, g, of_x = x[r, low:], grad[r], grad_x[r, low:]
            for j in range(width):
                y[j] = g[j] * weight[j] * row[j]
            for h in range(heads):
                slope = F(0)
                for c in range(channels):
                    slope += y[h * channels + c]
                root = scale[r, h]
                slope *= root * root * root / F(channels)
                for c in range(channels):
                    y[h * channels + c] = slope
                    z[h * channels + c] = root
            for j in range(width):
                of_x[j] = g[j] * weight[j] * z[j] - row[j] * y[j]
            for j in range(width):
                total[j] += g[j] * row[j] * z[j]
        grad_weight[block] = total


@compiled
def layer_norm(begin, end, x, gain, shift, out, statistics):
    """Rows of x̂·gain + shift with x̂ = (x − mean)·scale; see `normalization.ConditionalLayerNorm`.

    x, out (sample, node, channel); gain, shift (sample, channel); statistics (sample, node, 2): mean, scale.
    """
    nodes, width = x.shape[1:]
    for index in range(begin, end):
        s, n = index // nodes, index % nodes
        row, o, w, b = x[s, n], out[s, n], gain[s], shift[s]
        total, squares = F(0), F(0)
        for j in range(width):
            total += row[j]
        mean = total / F(width)
        for j in range(width):
            squares += (row[j] - mean) * (row[j] - mean)
        scale = F(1) / F(math.sqrt(squares / F(width) + EPS))
        statistics[s, n, 0], statistics[s, n, 1] = mean, scale
        for j in range(width):
            o[j] = (row[j] - mean) * scale * w[j] + b[j]


@compiled
def layer_norm_backward(begin, end, x, gain, statistics, grad, grad_x, grad_gain, grad_shift):
    """Gradients of blocks of nodes; grad_gain and grad_shift (sample, block, channel) are of a block each.

    ∂x = scale (∂x̂ − mean ∂x̂ − x̂ mean(∂x̂ x̂)) with ∂x̂ = ∂y gain, means over channels.
    """
    nodes, width = x.shape[1:]
    blocks = grad_gain.shape[1]
    y, z = np.empty(width, F), np.empty(width, F)
    of_gain, of_shift = np.empty(width, F), np.empty(width, F)
    for index in range(begin, end):
        s, block = index // blocks, index % blocks
        of_gain[:], of_shift[:] = 0, 0
        for n in range(block * ROWS, min(nodes, (block + 1) * ROWS)):
            row, g, of_x, w = x[s, n], grad[s, n], grad_x[s, n], gain[s]
            mean, scale = statistics[s, n, 0], statistics[s, n, 1]
            total, product = F(0), F(0)
            for j in range(width):
                y[j] = (row[j] - mean) * scale
            for j in range(width):
                z[j] = g[j] * w[j]
            for j in range(width):
                total += z[j]
                product += z[j] * y[j]
            total, product = total / F(width), product / F(width)
            for j in range(width):
                of_x[j] = scale * (z[j] - total - y[j] * product)
            for j in range(width):
                of_gain[j] += g[j] * y[j]
            for j in range(width):
                of_shift[j] += g[j]
        grad_gain[s, block], grad_shift[s, block] = of_gain, of_shift
