"""The network's loops on a CPU, compiled by Numba, where torch's operations are bound by memory.

Each kernel computes the rows `begin` … `end` − 1 in float32, on contiguous arrays; `loops.run` distributes
them over threads. The compiler vectorises flat loops with a single result, hence their number. It may change
the order of sums, so the last digits differ between machines. Compiled code is cached beside the source, or
in the user's cache directory where that is not writable, so only the first call ever takes seconds.
"""
