"""The row-wise operations between matrix products: activation and normalisation, with gradients."""

import math

import numpy as np

from diffusion_lab.acceleration.kernels.loops import LOG2E, F, compiled, exp2

A = F(math.sqrt(8 / math.pi))  # a and b of the activation, see `feed_forward`
B = F(0.044715 * math.sqrt(8 / math.pi))
EPS = F(1e-5)  # of every layer norm, torch's default
ROWS = 128  # rows in a block with a common sum
LEAST = 4096  # fewest rows for a thread


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
    """`gelu` again, and grad times its slope σ + h σ (1 − σ) (a + 3b h²), all shaped as hidden."""
    for r in range(begin, end):
        row, g, o, of_hidden = hidden[r], grad[r], out[r], grad_hidden[r]
        for j in range(row.size):
            h = row[j] + bias[j]
            gate = F(1) / (F(1) + exp2(min(-LOG2E * h * (A + B * h * h), F(126))))
            o[j] = h * gate
            of_hidden[j] = g[j] * (gate + h * gate * (F(1) - gate) * (A + F(3) * B * h * h))


@compiled
def head_norm(begin, end, x, low, weight, out, statistics):
    """Rows (head·channel) of x̂·weight with x̂ = (x − mean)·scale over the channels of each head.

    x may be wider: it begins at column `low`; statistics (row, head, 2): mean, scale.
    """
    width, heads = weight.size, statistics.shape[1]
    channels = width // heads
    y, z = np.empty(width, F), np.empty(width, F)
    for r in range(begin, end):
        row, o = x[r, low:], out[r]
        for h in range(heads):
            total = F(0)
            for c in range(channels):
                total += row[h * channels + c]
            total /= F(channels)
            statistics[r, h, 0] = total
            for c in range(channels):
                y[h * channels + c] = total
        for j in range(width):
            y[j] = row[j] - y[j]
            z[j] = y[j] * y[j]
        for h in range(heads):
            total = F(0)
            for c in range(channels):
                total += z[h * channels + c]
            total = F(1) / F(math.sqrt(total / F(channels) + EPS))
            statistics[r, h, 1] = total
            for c in range(channels):
                z[h * channels + c] = total
        for j in range(width):
            o[j] = y[j] * weight[j] * z[j]


@compiled
def head_norm_backward(begin, end, x, low, weight, statistics, grad, grad_x, grad_weight):
    """Gradients of blocks of rows; grad_weight (block, head·channel) holds one for each block.

    ∂x = scale (∂x̂ − mean ∂x̂ − x̂ mean(∂x̂ x̂)) with ∂x̂ = ∂y weight, means over the channels of a head.
    """
    width, heads = weight.size, statistics.shape[1]
    channels = width // heads
    y, z, product = np.empty(width, F), np.empty(width, F), np.empty(width, F)
    means, scales, total = np.empty(width, F), np.empty(width, F), np.empty(width, F)
    for block in range(begin, end):
        total[:] = 0
        for r in range(block * ROWS, min(len(x), (block + 1) * ROWS)):
            row, g, of_x = x[r, low:], grad[r], grad_x[r, low:]
            for h in range(heads):
                for c in range(channels):
                    y[h * channels + c], scales[h * channels + c] = statistics[r, h, 0], statistics[r, h, 1]
            for j in range(width):
                y[j] = (row[j] - y[j]) * scales[j]
                z[j] = g[j] * weight[j]
                product[j] = z[j] * y[j]
                total[j] += g[j] * y[j]
            for h in range(heads):
                mean, slope = F(0), F(0)
                for c in range(channels):
                    mean += z[h * channels + c]
                    slope += product[h * channels + c]
                mean, slope = mean / F(channels), slope / F(channels)
                for c in range(channels):
                    means[h * channels + c], product[h * channels + c] = mean, slope
            for j in range(width):
                of_x[j] = scales[j] * (z[j] - means[j] - y[j] * product[j])
        grad_weight[block] = total


@compiled
def layer_norm(begin, end, x, gain, shift, out, statistics):
    """Rows of x̂·gain + shift with x̂ = (x − mean)·scale.

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
    """Gradients of blocks of nodes; grad_gain, grad_shift (sample, block, channel) hold one for each block.

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
