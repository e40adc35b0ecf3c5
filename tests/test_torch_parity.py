"""PyTorch and we: outputs, states and every gradient, over random configurations."""

import os
import secrets

import numpy as np
import pytest

import numba_lstm as nl
import reference
from strategies import Case

torch = pytest.importorskip("torch")

TOLERANCE = {"float32": 2e-5, "float64": 1e-12}


def random_case(random):
    """Sizes that differ, options at random."""
    sizes = random.choice(np.arange(1, 80), 2, replace=False).tolist()
    return Case(
        T=int(random.integers(1, 12)),
        B=int(random.integers(1, 30)),
        I=sizes[0],
        H=sizes[1],
        layers=int(random.integers(1, 4)),
        bidirectional=bool(random.integers(2)),
        bias=bool(random.integers(2)),
        batch_first=bool(random.integers(2)),
        dtype=str(random.choice(["float32", "float64"])),
        seed=int(random.integers(2**31)),
    )


def assert_parity(case):
    dtype = getattr(torch, case.dtype)
    twin = torch.nn.LSTM(
        case.I,
        case.H,
        case.layers,
        bias=case.bias,
        batch_first=case.batch_first,
        bidirectional=case.bidirectional,
        dtype=dtype,
    )
    state = {name: tensor.numpy() for name, tensor in twin.state_dict().items()}
    lstm = nl.LSTM.from_state_dict(state, batch_first=case.batch_first)
    x, h0, c0, dy, dh, dc = case.arrays()
    inputs = [torch.from_numpy(a).requires_grad_() for a in (x, h0, c0)]
    y_t, (h_t, c_t) = twin(inputs[0], (inputs[1], inputs[2]))
    torch.autograd.backward([y_t, h_t, c_t], [torch.from_numpy(a) for a in (dy, dh, dc)])

    y, (h, c) = lstm.forward(x, (h0, c0))
    dx, (dh0, dc0) = lstm.backward(dy, (dh, dc))
    pairs = {
        "y": (y, y_t.detach()),
        "h": (h, h_t.detach()),
        "c": (c, c_t.detach()),
        "dx": (dx, inputs[0].grad),
        "dh0": (dh0, inputs[1].grad),
        "dc0": (dc0, inputs[2].grad),
    }
    for name in lstm.parameters:
        theirs = getattr(twin, name.replace("bias_", "bias_ih_")).grad
        pairs[name] = (lstm.gradients[name], theirs)
    for name, (ours, theirs) in pairs.items():
        error = reference.relative_error(ours, theirs.numpy())
        assert error < TOLERANCE[case.dtype], (name, case)


@pytest.mark.parametrize("group", range(20))
def test_random_configurations(group):
    torch.manual_seed(group)
    random = np.random.default_rng(group)
    for _ in range(12):
        assert_parity(random_case(random))


@pytest.mark.exhaustive
def test_more_random_configurations():
    seed = int(os.environ.get("NUMBA_LSTM_SEED", secrets.randbelow(2**32)))
    print(f"NUMBA_LSTM_SEED={seed}")
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    for _ in range(300):
        assert_parity(random_case(random))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_our_state_dict_loads_into_pytorch(dtype):
    lstm = nl.LSTM(5, 7, 2, bidirectional=True, dtype=dtype, seed=0)
    twin = torch.nn.LSTM(5, 7, 2, bidirectional=True, dtype=getattr(torch, dtype))
    state = {name: torch.from_numpy(array) for name, array in lstm.state_dict().items()}
    twin.load_state_dict(state, strict=True)
    x = np.random.default_rng(0).standard_normal((4, 3, 5)).astype(dtype)
    with torch.inference_mode():
        expected, _ = twin(torch.from_numpy(x))
    assert reference.relative_error(lstm(x)[0], expected.numpy()) < TOLERANCE[dtype]
