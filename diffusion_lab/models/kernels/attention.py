"""Attention and its gradients: over the neighbours in a graph, and of all nodes over all nodes."""

import math

import numpy as np

from diffusion_lab.models.kernels.loops import LOG2E, F, compiled, exp2


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
def _products(q, k, out):
    """out[node] = Σ q[channel] k[channel, node]."""
    out[:] = 0
    for c in range(0, len(k), 4):
        q0, q1, q2, q3 = q[c], q[c + 1], q[c + 2], q[c + 3]
        k0, k1, k2, k3 = k[c], k[c + 1], k[c + 2], k[c + 3]
        for j in range(out.size):
            out[j] += q0 * k0[j] + q1 * k1[j] + q2 * k2[j] + q3 * k3[j]


@compiled
def _sums(p, v, out):
    """out[channel] = Σ p[node] v[channel, node]."""
    for c in range(0, len(v), 4):
        v0, v1, v2, v3 = v[c], v[c + 1], v[c + 2], v[c + 3]
        s0, s1, s2, s3 = F(0), F(0), F(0), F(0)
        for j in range(p.size):
            s0 += p[j] * v0[j]
            s1 += p[j] * v1[j]
            s2 += p[j] * v2[j]
            s3 += p[j] * v3[j]
        out[c], out[c + 1], out[c + 2], out[c + 3] = s0, s1, s2, s3


@compiled
def self_attention(begin, end, query, key, value, out, total):
    """Attention of all nodes over all nodes, for (sample, head); see `self_attention`.

    All are (sample, node, head, channel) but total (sample, head, node): log₂ Σ 2^logit.
    """
    _, nodes, heads, channels = query.shape
    fours = (channels + 3) // 4 * 4  # channels in fours: a fourth of the passes over the nodes
    unit = LOG2E / F(math.sqrt(channels))
    q, p = np.zeros(fours, F), np.empty(nodes, F)
    k, v = np.zeros((fours, nodes), F), np.zeros((fours, nodes), F)
    o = np.empty(fours, F)
    for pair in range(begin, end):
        s, h = pair // heads, pair % heads
        for j in range(nodes):
            for c in range(channels):
                k[c, j], v[c, j] = key[s, j, h, c], value[s, j, h, c]
        longest = F(math.sqrt((k * k).sum(0).max()))
        for i in range(nodes):
            for c in range(channels):
                q[c] = query[s, i, h, c] * unit
            _products(q, k, p)
            top, z = F(0), F(0)
            if F(math.sqrt((q * q).sum())) * longest > F(100):  # else 2^logit cannot overflow as it is
                top = p.max()
            for j in range(nodes):
                p[j] = exp2(p[j] - top)
                z += p[j]
            _sums(p, v, o)
            total[s, h, i] = top + F(math.log2(z))
            for c in range(channels):
                out[s, i, h, c] = o[c] / z


@compiled
def self_attention_backward(
    begin, end, query, key, value, out, total, grad, grad_query, grad_key, grad_value
):  # fmt: skip
    """Gradients of `self_attention`, its weights p made again; as in `neighbour_attention_backward`."""
    _, nodes, heads, channels = query.shape
    fours = (channels + 3) // 4 * 4
    unit = F(1) / F(math.sqrt(channels))
    q, g, o = np.zeros(fours, F), np.zeros(fours, F), np.empty(fours, F)
    p, slope = np.empty(nodes, F), np.empty(nodes, F)
    k, v = np.zeros((fours, nodes), F), np.zeros((fours, nodes), F)
    grad_k, grad_v = np.empty((fours, nodes), F), np.empty((fours, nodes), F)
    for pair in range(begin, end):
        s, h = pair // heads, pair % heads
        for j in range(nodes):
            for c in range(channels):
                k[c, j], v[c, j] = key[s, j, h, c], value[s, j, h, c]
        grad_k[:], grad_v[:] = 0, 0
        for i in range(nodes):
            d = F(0)
            for c in range(channels):
                q[c], g[c] = query[s, i, h, c] * unit, grad[s, i, h, c]
                d += g[c] * out[s, i, h, c]
            _products(q, k, p)
            _products(g, v, slope)
            for j in range(nodes):
                p[j] = exp2(p[j] * LOG2E - total[s, h, i])
            for j in range(nodes):
                slope[j] = p[j] * (slope[j] - d)
            _sums(slope, k, o)
            for c in range(channels):
                grad_query[s, i, h, c] = o[c] * unit
                a, b, of_k, of_v = q[c], g[c], grad_k[c], grad_v[c]
                for j in range(nodes):
                    of_k[j] += slope[j] * a
                for j in range(nodes):
                    of_v[j] += p[j] * b
        for j in range(nodes):
            for c in range(channels):
                grad_key[s, j, h, c], grad_value[s, j, h, c] = grad_k[c, j], grad_v[c, j]
