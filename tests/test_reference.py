"""The oracle itself: against PyTorch in float64, and against its own differences."""

import numpy as np
import pytest

import reference
from strategies import Case


@pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (2, True)])
def test_oracle_equals_pytorch(layers, bidirectional):
    torch = pytest.importorskip("torch")
    case = Case(5, 3, 7, 4, layers, bidirectional)
    lstm = case.model()
    twin = torch.nn.LSTM(7, 4, layers, bidirectional=bidirectional, dtype=torch.float64)
    twin.load_state_dict({k: torch.from_numpy(v) for k, v in lstm.state_dict().items()})
    x, h0, c0, dy, dh, dc = case.arrays()
    inputs = [torch.from_numpy(a).requires_grad_() for a in (x, h0, c0)]
    y, (h, c) = twin(inputs[0], (inputs[1], inputs[2]))
    torch.autograd.backward([y, h, c], [torch.from_numpy(a) for a in (dy, dh, dc)])

    options = {"layers": layers, "directions": case.directions}
    y_ours, (h_ours, c_ours), tape = reference.lstm_forward(x, (h0, c0), lstm.parameters, **options)
    dx, (dh0, dc0), gradients = reference.lstm_backward(
        tape, dy, (dh, dc), lstm.parameters, **options
    )
    pairs = [(y_ours, y), (h_ours, h), (c_ours, c)]
    pairs += [(a, b.grad) for a, b in zip((dx, dh0, dc0), inputs, strict=True)]
    for name, gradient in gradients.items():
        pairs.append((gradient, getattr(twin, name.replace("bias_", "bias_ih_")).grad))
    for ours, theirs in pairs:
        assert reference.relative_error(ours, theirs.detach().numpy()) < 1e-13


def test_oracle_loss_has_its_own_gradient():
    random = np.random.default_rng(0)
    y = random.standard_normal((5, 7))
    target = random.integers(0, 7, 5)
    weights = random.uniform(0.5, 2.0, 5)
    _, dy = reference.softmax_cross_entropy(y, target, weights)
    numeric = reference.central_difference(
        lambda: reference.softmax_cross_entropy(y, target, weights)[0], y
    )
    assert reference.relative_error(dy, numeric) < 1e-10
