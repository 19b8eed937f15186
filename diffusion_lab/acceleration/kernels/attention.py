"""Attention over the neighbours in a graph and full attention, with their gradients."""

import math

import numpy as np

from diffusion_lab.acceleration.kernels.loops import LOG2E, F, compiled, exp2

EIGHT = 8  # channels at a time in full attention: few passes over the nodes within the number of registers


@compiled
def neighbour_attention(begin, end, query, key, value, edge, first, source, targets, out, weights):
    """Attention of (sample, bucket row) over its edges; see `models.attention`.

    query, out (sample, target, head·channel); key, value (sample, source, head·channel); edge (edge,
    head·channel); first (row + 1), source (edge), targets (row); weights (sample, edge, head).
    """
    rows, width, heads = targets.size, edge.shape[1], weights.shape[2]
    channels = width // heads
    unit = LOG2E / F(math.sqrt(channels))
    q, x, total = np.empty(width, F), np.empty(width, F), np.empty(width, F)
    top, z = np.empty(heads, F), np.empty(heads, F)
    for row in range(begin, end):
        s, r = row // rows, row % rows
        t = targets[r]
        for j in range(width):
            q[j] = query[s, t, j] * unit
        top[:], z[:], total[:] = F(-1e30), 0, 0
        for i in range(first[r], first[r + 1]):
            k, e, w = key[s, source[i]], edge[i], weights[s, i]
            for j in range(width):
                x[j] = q[j] * (k[j] + e[j])
            for h in range(heads):
                logit = F(0)
                for c in range(channels):
                    logit += x[h * channels + c]
                w[h] = logit
            for h in range(heads):
                top[h] = max(top[h], w[h])
        for i in range(first[r], first[r + 1]):
            w = weights[s, i]
            for h in range(heads):
                w[h] = exp2(w[h] - top[h])
            for h in range(heads):
                z[h] += w[h]
        for i in range(first[r], first[r + 1]):
            v, e, w = value[s, source[i]], edge[i], weights[s, i]
            for h in range(heads):
                w[h] /= z[h]
                for c in range(channels):
                    x[h * channels + c] = w[h]
            for j in range(width):
                total[j] += x[j] * (v[j] + e[j])
        out[s, t] = total


@compiled
def neighbour_attention_backward(
    begin, end, query, key, value, edge, first, source, targets, out, weights,
    grad, grad_query, grad_key, grad_value, grad_edge,
):  # fmt: skip
    """Gradients of heads `begin` … `end` − 1, for the weights p from `neighbour_attention`.

    With K = k + e, V = v + e and D = ∂o·o: ∂l = p (∂o·V − D), ∂q = Σ ∂l K / √channel, ∂K = ∂l q / √channel,
    ∂V = p ∂o, ∂e = ∂K + ∂V. All but ∂q are added to the arrays.
    """
    samples, rows, channels = len(query), targets.size, edge.shape[1] // weights.shape[2]
    heads, low, width = end - begin, begin * channels, (end - begin) * channels
    unit = F(1) / F(math.sqrt(channels))
    q, g, total = np.empty(width, F), np.empty(width, F), np.empty(width, F)
    x, y, d = np.empty(width, F), np.empty(width, F), np.empty(heads, F)
    for s in range(samples):
        for r in range(rows):
            t = targets[r]
            for j in range(width):
                q[j] = query[s, t, low + j] * unit
                g[j] = grad[s, t, low + j]
                x[j] = g[j] * out[s, t, low + j]
            for h in range(heads):
                d[h] = F(0)
                for c in range(channels):
                    d[h] += x[h * channels + c]
            total[:] = 0
            for i in range(first[r], first[r + 1]):
                n, e, w = source[i], edge[i, low:], weights[s, i, begin:]
                k, v = key[s, n, low:], value[s, n, low:]
                for j in range(width):
                    x[j] = g[j] * (v[j] + e[j])
                for h in range(heads):
                    slope = F(0)
                    for c in range(channels):
                        slope += x[h * channels + c]
                    slope = w[h] * (slope - d[h])
                    for c in range(channels):
                        x[h * channels + c] = slope
                        y[h * channels + c] = w[h]
                for j in range(width):
                    total[j] += x[j] * (k[j] + e[j])
                for j in range(width):
                    x[j] *= q[j]
                for j in range(width):
                    y[j] *= g[j]
                grad_k, grad_v, grad_e = grad_key[s, n, low:], grad_value[s, n, low:], grad_edge[i, low:]
                for j in range(width):
                    grad_k[j] += x[j]
                for j in range(width):
                    grad_v[j] += y[j]
                for j in range(width):
                    grad_e[j] += x[j] + y[j]
            for j in range(width):
                grad_query[s, t, low + j] = total[j] * unit


@compiled
def _compare(size, q, k, shift, p, out):
    """out[i, node] = 2^(x − shift[i]) for two queries i, where x = Σ q[i, channel] k[channel, node].

    With p (2, node), p[i, node] (x − shift[i]) instead. Returns the sums over nodes. Keys are read once for
    both queries, and the last step is fused with the last channels. Of q (2, channel), k (channel, node) and
    out (2, node) the first `size` nodes count, here and below: rows are padded, see `_zeros`.
    """
    out0, out1, z0, z1 = out[0], out[1], F(0), F(0)
    if p is not None:
        p0, p1 = p[0], p[1]
    shift0, shift1 = shift[0], shift[1]
    out0[:size], out1[:size] = 0, 0
    for c in range(0, len(k), EIGHT):
        a, b = q[0, c:], q[1, c:]
        a0, a1, a2, a3, a4, a5, a6, a7 = a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]
        b0, b1, b2, b3, b4, b5, b6, b7 = b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]
        k0, k1, k2, k3 = k[c], k[c + 1], k[c + 2], k[c + 3]
        k4, k5, k6, k7 = k[c + 4], k[c + 5], k[c + 6], k[c + 7]
        ends = c + EIGHT == len(k)
        for j in range(size):
            l0, l1, l2, l3, l4, l5, l6, l7 = k0[j], k1[j], k2[j], k3[j], k4[j], k5[j], k6[j], k7[j]
            x = out0[j] + a0 * l0 + a1 * l1 + a2 * l2 + a3 * l3 + (a4 * l4 + a5 * l5 + a6 * l6 + a7 * l7)
            y = out1[j] + b0 * l0 + b1 * l1 + b2 * l2 + b3 * l3 + (b4 * l4 + b5 * l5 + b6 * l6 + b7 * l7)
            if ends:
                x, y = x - shift0, y - shift1
                if p is None:
                    x, y = exp2(x), exp2(y)
                else:
                    x, y = p0[j] * x, p1[j] * y
                z0 += x
                z1 += y
            out0[j], out1[j] = x, y
    return z0, z1


@compiled
def _sums(size, p, v, out):
    """out[i, channel] = Σ p[i, node] v[channel, node] for two queries i."""
    p0, p1 = p[0], p[1]
    for c in range(0, len(v), EIGHT):
        v0, v1, v2, v3 = v[c], v[c + 1], v[c + 2], v[c + 3]
        v4, v5, v6, v7 = v[c + 4], v[c + 5], v[c + 6], v[c + 7]
        s0, s1, s2, s3, s4, s5, s6, s7 = F(0), F(0), F(0), F(0), F(0), F(0), F(0), F(0)
        t0, t1, t2, t3, t4, t5, t6, t7 = F(0), F(0), F(0), F(0), F(0), F(0), F(0), F(0)
        for j in range(size):
            x, y = p0[j], p1[j]
            s0, t0 = s0 + x * v0[j], t0 + y * v0[j]
            s1, t1 = s1 + x * v1[j], t1 + y * v1[j]
            s2, t2 = s2 + x * v2[j], t2 + y * v2[j]
            s3, t3 = s3 + x * v3[j], t3 + y * v3[j]
            s4, t4 = s4 + x * v4[j], t4 + y * v4[j]
            s5, t5 = s5 + x * v5[j], t5 + y * v5[j]
            s6, t6 = s6 + x * v6[j], t6 + y * v6[j]
            s7, t7 = s7 + x * v7[j], t7 + y * v7[j]
        out[0, c], out[0, c + 1], out[0, c + 2], out[0, c + 3] = s0, s1, s2, s3
        out[0, c + 4], out[0, c + 5], out[0, c + 6], out[0, c + 7] = s4, s5, s6, s7
        out[1, c], out[1, c + 1], out[1, c + 2], out[1, c + 3] = t0, t1, t2, t3
        out[1, c + 4], out[1, c + 5], out[1, c + 6], out[1, c + 7] = t4, t5, t6, t7


@compiled
def _spread(size, p, q, out):
    """out[channel, node] += Σ p[i, node] q[i, channel] over two queries i."""
    p0, p1 = p[0], p[1]
    for c in range(0, len(out), 2):
        o0, o1, a0, a1, b0, b1 = out[c], out[c + 1], q[0, c], q[0, c + 1], q[1, c], q[1, c + 1]
        for j in range(size):
            x, y = p0[j], p1[j]
            o0[j] += x * a0 + y * b0
            o1[j] += x * a1 + y * b1


@compiled
def _zeros(rows, nodes):
    """Zeros (row, node), padded so that each row begins a cache line.

    A row has an odd number of cache lines, so neighbouring rows do not evict each other.
    """
    width = (nodes + 15) // 16 // 2 * 32 + 16
    flat = np.zeros(rows * width + 16, F)
    skip = -flat.ctypes.data % 64 // 4
    return flat[skip : skip + rows * width].reshape(rows, width)


@compiled
def _transposed(x, s, h, out):
    """out[channel, node] = x[s, node, h, channel]."""
    for j in range(x.shape[1]):
        for c in range(x.shape[3]):
            out[c, j] = x[s, j, h, c]


@compiled
def full_attention(begin, end, query, key, value, out, total):
    """Full attention for (sample, head).

    All are (sample, node, head, channel) but total (sample, head, node): log₂ Σ 2^logit. Queries are
    processed in pairs, padded with zeros.
    """
    _, nodes, heads, channels = query.shape
    padded, even = (channels + EIGHT - 1) // EIGHT * EIGHT, nodes + nodes % 2
    unit = LOG2E / F(math.sqrt(channels))
    q, o, p = np.zeros((even, padded), F), np.empty((even, padded), F), _zeros(2, nodes)
    k, v = _zeros(padded, nodes), _zeros(padded, nodes)
    top = np.zeros(even, F)
    for pair in range(begin, end):
        s, h = pair // heads, pair % heads
        _transposed(key, s, h, k)
        _transposed(value, s, h, v)
        longest = (k * k).sum(0).max()
        for i in range(nodes):
            length = F(0)
            for c in range(channels):
                q[i, c] = query[s, i, h, c] * unit
                length += q[i, c] * q[i, c]
            top[i] = 0
            if length * longest > F(100 * 100):  # otherwise 2^logit cannot overflow
                p[0] = 0
                for c in range(channels):
                    for j in range(nodes):
                        p[0, j] += q[i, c] * k[c, j]
                top[i] = p[0].max()
        for i in range(0, nodes, 2):
            z = _compare(nodes, q[i : i + 2], k, top[i : i + 2], None, p)
            _sums(nodes, p, v, o[i : i + 2])
            for two in range(min(2, nodes - i)):
                total[s, h, i + two] = top[i + two] + F(math.log2(z[two]))
                for c in range(channels):
                    out[s, i + two, h, c] = o[i + two, c] / z[two]


@compiled
def full_attention_backward(
    begin, end, query, key, value, out, total, grad, grad_query, grad_key, grad_value
):  # fmt: skip
    """Gradients of `full_attention` with recomputed weights, as in `neighbour_attention_backward`."""
    _, nodes, heads, channels = query.shape
    padded, even = (channels + EIGHT - 1) // EIGHT * EIGHT, nodes + nodes % 2
    unit = F(1) / F(math.sqrt(channels))
    q, g, o = np.zeros((even, padded), F), np.zeros((even, padded), F), np.empty((even, padded), F)
    p, slope = _zeros(2, nodes), _zeros(2, nodes)
    top, d = np.zeros(even, F), np.zeros(even, F)
    k, v = _zeros(padded, nodes), _zeros(padded, nodes)
    grad_k, grad_v = _zeros(padded, nodes), _zeros(padded, nodes)
    for pair in range(begin, end):
        s, h = pair // heads, pair % heads
        _transposed(key, s, h, k)
        _transposed(value, s, h, v)
        for i in range(nodes):
            d[i], top[i] = 0, total[s, h, i]
            for c in range(channels):
                q[i, c], g[i, c] = query[s, i, h, c] * (unit * LOG2E), grad[s, i, h, c]
                d[i] += g[i, c] * out[s, i, h, c]
        grad_k[:], grad_v[:] = 0, 0
        for i in range(0, nodes, 2):
            two = slice(i, i + 2)
            _compare(nodes, q[two], k, top[two], None, p)
            _compare(nodes, g[two], v, d[two], p, slope)
            _sums(nodes, slope, k, o[two])
            _spread(nodes, p, g[two], grad_v)
            _spread(nodes, slope, q[two], grad_k)
        for i in range(nodes):
            for c in range(channels):
                # The queries in q include a factor log₂ e, which the gradient of the keys does not.
                grad_query[s, i, h, c] = o[i, c] * unit
                grad_key[s, i, h, c], grad_value[s, i, h, c] = grad_k[c, i] / LOG2E, grad_v[c, i]
