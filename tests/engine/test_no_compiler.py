"""In processes of their own: what is imported stays so."""

from __future__ import annotations

import subprocess
import sys

import pytest

START = """
import sys
import torch
from ue_bench.engine.no_compiler import CompilerStandIn, leave_compiler_out

leave_compiler_out()
weight = torch.nn.Parameter(torch.ones(2))
for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW):
    optimizer = kind([weight], 0.5)
    weight.sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    optimizer.load_state_dict(optimizer.state_dict())
assert isinstance(sys.modules["torch._dynamo"], CompilerStandIn)
assert "torch._dynamo.config" not in sys.modules
"""


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", START + code], check=True, capture_output=True, text=True).stdout


def test_optimizers_take_the_same_steps_without_the_compiler() -> None:
    given = [float(word) for word in run("print(*weight.tolist())").split()]
    assert given == pytest.approx([-0.5, -0.5], abs=1e-6)  # from 1: 0.5 each, and the decay of AdamW is that of 0


@pytest.mark.slow  # the compiler takes two seconds to import
def test_the_compiler_is_imported_where_it_is_used() -> None:
    code = """
network = torch.nn.Linear(2, 1)
x = torch.ones(1, 2)
assert torch.equal(torch.compile(network, backend="eager")(x), network(x))
assert sys.modules["torch._dynamo"] is torch._dynamo and not isinstance(torch._dynamo, CompilerStandIn)
optimizer.step()
leave_compiler_out()
assert not isinstance(torch._dynamo, CompilerStandIn)
"""
    run(code)
    run("import torch._dynamo.config; assert torch._dynamo.config.verbose is False")
