"""Attention and its gradients: over the neighbours in a graph, and of all nodes over all nodes."""

import math

import numpy as np

from diffusion_lab.models.kernels.loops import LOG2E, F, compiled, exp2

EIGHT = 8  # channels at a time, of whole attention: fewer passes over the nodes, and still enough registers


@compiled
def neighbour_attention(begin, end, query, key, value, edge, first, source, targets, out, weights):
    """Attention of (sample, bucket row) over its edges; see `attention.neighbour_attention`.

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
    """Gradients of heads `begin` … `end` − 1, for the weights p that `neighbour_attention` made.

    With K = k + e, V = v + e and D = ∂o·o: ∂l = p (∂o·V − D), ∂q = Σ ∂l K / √channel, ∂K = ∂l q / √channel,
    ∂V = p ∂o, ∂e = ∂K + ∂V. All but ∂q are added to what is there.
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
def _compare(q, k, shift, p, out):
    """out[i, node] = 2^(x − shift[i]) for two queries i, where x = Σ q[i, channel] k[channel, node].

    With p (2, node), p[i, node] (x − shift[i]) instead. Returns the sums over nodes. Keys are read once for
    both, and the end is made while the last channels are added.
    """
    out0, out1, z0, z1 = out[0], out[1], F(0), F(0)
    if p is not None:
        p0, p1 = p[0], p[1]
    shift0, shift1, begun = shift[0], shift[1], len(k) > EIGHT
    if begun:
        out0[:], out1[:] = 0, 0
    for c in range(0, len(k), EIGHT):
        a, b = q[0, c:], q[1, c:]
        a0, a1, a2, a3, a4, a5, a6, a7 = a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]
        b0, b1, b2, b3, b4, b5, b6, b7 = b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]
        k0, k1, k2, k3 = k[c], k[c + 1], k[c + 2], k[c + 3]
        k4, k5, k6, k7 = k[c + 4], k[c + 5], k[c + 6], k[c + 7]
        last = c + EIGHT == len(k)
        for j in range(out0.size):
            l0, l1, l2, l3, l4, l5, l6, l7 = k0[j], k1[j], k2[j], k3[j], k4[j], k5[j], k6[j], k7[j]
            x = a0 * l0 + a1 * l1 + a2 * l2 + a3 * l3 + (a4 * l4 + a5 * l5 + a6 * l6 + a7 * l7)
            y = b0 * l0 + b1 * l1 + b2 * l2 + b3 * l3 + (b4 * l4 + b5 * l5 + b6 * l6 + b7 * l7)
            if begun:
                x += out0[j]
                y += out1[j]
            if last:
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
def _sums(p, v, out):
    """out[i, channel] = Σ p[i, node] v[channel, node] for two queries i."""
    p0, p1 = p[0], p[1]
    for c in range(0, len(v), EIGHT):
        v0, v1, v2, v3 = v[c], v[c + 1], v[c + 2], v[c + 3]
        v4, v5, v6, v7 = v[c + 4], v[c + 5], v[c + 6], v[c + 7]
        s0, s1, s2, s3, s4, s5, s6, s7 = F(0), F(0), F(0), F(0), F(0), F(0), F(0), F(0)
        t0, t1, t2, t3, t4, t5, t6, t7 = F(0), F(0), F(0), F(0), F(0), F(0), F(0), F(0)
        for j in range(p0.size):
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
def self_attention(begin, end, query, key, value, out, total):
    """Attention of all nodes over all nodes, for (sample, head); see `self_attention`.

    All are (sample, node, head, channel) but total (sample, head, node): log₂ Σ 2^logit. Queries go in pairs,
    an odd last one with itself.
    """
    _, nodes, heads, channels = query.shape
    padded = (channels + EIGHT - 1) // EIGHT * EIGHT
    unit = LOG2E / F(math.sqrt(channels))
    q, p, top = np.zeros((2, padded), F), np.empty((2, nodes), F), np.empty(2, F)
    k, v = np.zeros((padded, nodes), F), np.zeros((padded, nodes), F)
    o = np.empty((2, padded), F)
    for pair in range(begin, end):
        s, h = pair // heads, pair % heads
        for j in range(nodes):
            for c in range(channels):
                k[c, j], v[c, j] = key[s, j, h, c], value[s, j, h, c]
        longest = (k * k).sum(0).max()
        for first in range(0, nodes, 2):
            for two in range(2):
                i, length, top[two] = min(first + two, nodes - 1), F(0), F(0)
                for c in range(channels):
                    q[two, c] = query[s, i, h, c] * unit
                    length += q[two, c] * q[two, c]
                if length * longest > F(100 * 100):  # else 2^logit cannot overflow as it is
                    p[two] = 0
                    for c in range(channels):
                        for j in range(nodes):
                            p[two, j] += q[two, c] * k[c, j]
                    top[two] = p[two].max()
            z = _compare(q, k, top, None, p)
            _sums(p, v, o)
            for two in range(2):
                i = min(first + two, nodes - 1)
                total[s, h, i] = top[two] + F(math.log2(z[two]))
                for c in range(channels):
                    out[s, i, h, c] = o[two, c] / z[two]


@compiled
def _spread(p, q, out):
    """out[channel, node] += Σ p[i, node] q[i, channel] over two queries i."""
    p0, p1 = p[0], p[1]
    for c in range(0, len(out), 2):
        o0, o1, a0, a1, b0, b1 = out[c], out[c + 1], q[0, c], q[0, c + 1], q[1, c], q[1, c + 1]
        for j in range(p0.size):
            x, y = p0[j], p1[j]
            o0[j] += x * a0 + y * b0
            o1[j] += x * a1 + y * b1


@compiled
def self_attention_backward(
    begin, end, query, key, value, out, total, grad, grad_query, grad_key, grad_value
):  # fmt: skip
    """Gradients of `self_attention`, its weights p made again; as in `neighbour_attention_backward`."""
    _, nodes, heads, channels = query.shape
    padded = (channels + EIGHT - 1) // EIGHT * EIGHT
    unit = F(1) / F(math.sqrt(channels))
    q, g, o = np.zeros((2, padded), F), np.zeros((2, padded), F), np.empty((2, padded), F)
    p, slope = np.empty((2, nodes), F), np.empty((2, nodes), F)
    top, d = np.empty(2, F), np.empty(2, F)
    k, v = np.zeros((padded, nodes), F), np.zeros((padded, nodes), F)
    grad_k, grad_v = np.empty((padded, nodes), F), np.empty((padded, nodes), F)
    for pair in range(begin, end):
        s, h = pair // heads, pair % heads
        for j in range(nodes):
            for c in range(channels):
                k[c, j], v[c, j] = key[s, j, h, c], value[s, j, h, c]
        grad_k[:], grad_v[:] = 0, 0
        for first in range(0, nodes, 2):
            for two in range(2):
                i, d[two] = min(first + two, nodes - 1), 0
                top[two] = total[s, h, i]
                for c in range(channels):
                    q[two, c], g[two, c] = query[s, i, h, c] * (unit * LOG2E), grad[s, i, h, c]
                    d[two] += g[two, c] * out[s, i, h, c]
            _compare(q, k, top, None, p)
            _compare(g, v, d, p, slope)
            _sums(slope, k, o)
            if first + 1 == nodes:
                p[1], slope[1] = 0, 0
            _spread(p, g, grad_v)
            _spread(slope, q, grad_k)
            for two in range(2):
                i = min(first + two, nodes - 1)
                for c in range(channels):
                    grad_query[s, i, h, c] = o[two, c] * unit
        for j in range(nodes):
            for c in range(channels):
                grad_key[s, j, h, c], grad_value[s, j, h, c] = grad_k[c, j] / LOG2E, grad_v[c, j]
