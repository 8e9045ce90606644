"""LSTM, GRU and RNN of PyTorch: one operator a layer, for any number of steps."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from edgewise.exporter import ExportError, export
from edgewise.runtime.onnx_runner import OnnxRunner
from edgewise.runtime.tensors import TensorSpec

torch = pytest.importorskip("torch")

ANY = [TensorSpec.parse("x=f32[N,T,6]")]


class Layer(torch.nn.Module):
    """A recurrent layer, and something behind it that asks how many steps there are."""

    def __init__(self, kind, **options):
        super().__init__()
        self.layer = getattr(torch.nn, kind)(6, 5, **options)

    def forward(self, x):
        values, states = self.layer(x)
        states = states if isinstance(states, tuple) else (states,)
        return values.reshape(values.shape[0] * values.shape[1], values.shape[2]), *states


class Tagger(torch.nn.Module):
    """Attention over a recurrent layer."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(50, 6)
        self.steps = torch.nn.GRU(6, 4, batch_first=True, bidirectional=True)
        self.attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, ids):
        read, _ = self.steps(self.table(ids))
        seen, _ = self.attention(read, read, read, need_weights=False)
        return (read + seen).amax(1)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("LSTM", {"num_layers": 2, "bidirectional": True, "batch_first": True}),
        ("LSTM", {"bias": False}),
        ("GRU", {"num_layers": 2, "batch_first": True}),
        ("GRU", {"bidirectional": True, "bias": False}),
        ("RNN", {"num_layers": 2, "bidirectional": True}),
        ("RNN", {"nonlinearity": "relu", "batch_first": True}),
    ],
)
def test_a_layer_is_one_operator_at_every_size(kind, options):
    torch.manual_seed(0)
    exported = export(Layer(kind, **options), inputs=ANY)  # compared at two sizes of both dims
    assert all(parity.sqnr_db > 100 for parity in exported.parity)
    found = Counter(node.op_type for node in exported.model.graph)
    assert found[kind] == options.get("num_layers", 1)
    assert found["Split"] == found["Unsqueeze"] == 0  # of the weights nothing is left to compute
    assert exported.report["warnings"] == []
    for spec in exported.outputs[1:]:
        assert spec.shape[1] == ("T" if not options.get("batch_first") else "N")


def test_what_stands_behind_takes_any_number_of_steps_too():
    torch.manual_seed(0)
    network = Tagger().eval()
    exported = export(network, inputs=[TensorSpec.parse("ids=i64[N,T]")])
    runner = OnnxRunner(exported.model)
    for shape in ((1, 1), (3, 4), (2, 31)):
        ids = np.random.default_rng(1).integers(0, 50, shape)
        with torch.no_grad():
            want = network(torch.from_numpy(ids)).numpy()
        np.testing.assert_allclose(runner.run({"ids": ids})["output"], want, rtol=1e-4, atol=1e-5)


def test_packed_sequences_are_left_to_pytorch():
    from edgewise.exporter.recurrent import kept_whole

    torch.manual_seed(0)
    layer = torch.nn.GRU(6, 5)
    packed = torch.nn.utils.rnn.pack_padded_sequence(torch.randn(7, 2, 6), torch.tensor([7, 4]))
    want = layer(packed)[0].data
    with kept_whole():
        torch.testing.assert_close(layer(packed)[0].data, want)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_an_lstm_with_a_projection_is_refused_by_name():
    with pytest.raises(
        ExportError, match=r"cannot be traced.*an LSTM with a projection \(proj_size\), which ONNX does not have"
    ):
        export(Layer("LSTM", proj_size=3), inputs=ANY)


def test_the_network_computes_as_before_afterwards():
    layer = Layer("GRU")
    x = torch.randn(3, 2, 6)
    before = layer(x)[0]
    export(layer, inputs=ANY, verify=False)
    assert layer(x)[0].grad_fn is not None
    torch.testing.assert_close(layer(x)[0], before)
