"""What tests of the network's parts share."""

import copy

import pytest
import torch


@pytest.fixture
def assert_agree():
    """Hold result and gradients of a function, in some precision, against a plain form in double precision.

    Both are called with the inputs, then the modules, and answer one tensor; `gradients` is how much less
    accurate gradients may be than the result.
    """

    def check(function, plain, inputs, modules=(), *, dtype, accuracy, gradients=10):
        outs, grads, direction = [], [], None
        for form, precision in ((function, dtype), (plain, torch.float64)):
            copies = [copy.deepcopy(module).to(precision) for module in modules]
            tensors = [t.detach().to(precision, copy=True).requires_grad_() for t in inputs]
            out = form(*tensors, *copies).double()
            direction = torch.randn_like(out) if direction is None else direction
            parameters = [p for module in copies for p in module.parameters()]
            grads.append(torch.autograd.grad((out * direction).sum(), tensors + parameters))
            outs.append(out)
        torch.testing.assert_close(*outs, rtol=0, atol=accuracy)
        for ours, reference in zip(*grads, strict=True):
            torch.testing.assert_close(ours.double(), reference, rtol=accuracy, atol=gradients * accuracy)

    return check
