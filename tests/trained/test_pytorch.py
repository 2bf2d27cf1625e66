"""Weights named as PyTorch programs name them, against a float64 network that reads those names."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.special import erf

import ssm_jax
from ssm_jax.trained import from_torch, load

H, N, K, L, VOCAB = 4, 3, 5, 12, 7


def softplus(x):
    return np.log1p(np.exp(x))


def backbone(
    *, seed=0, sets=1, directions=2, norm="batch", B=False, beta=True, tokens=True, depth=2
):
    """A state dict of the backbone of state-spaces/s4, with B, or of FreqBiasSSM, with s."""
    rng = np.random.default_rng(seed)
    found = {}

    def add(name, *shape, low=None):
        value = rng.normal(size=shape) if low is None else rng.uniform(low, low + 1, shape)
        found[name] = value.astype(np.float32)

    def add_norm(name):
        add(f"{name}.weight", H)
        add(f"{name}.bias", H)
        if norm == "batch":
            add(f"{name}.running_mean", H)
            add(f"{name}.running_var", H, low=0.5)
            found[f"{name}.num_batches_tracked"] = np.array(9)

    for i in range(depth):
        block = f"model.layers.{i}"
        add_norm(f"{block}.norm.norm")
        add(f"{block}.layer.layer.D", 1, H)
        kernel = f"{block}.layer.layer.kernel"
        add(f"{kernel}.inv_dt", H, 1, low=-3)
        add(f"{kernel}.A_real", sets, N, low=-1)
        add(f"{kernel}.A_imag", sets, N, low=0)
        add(f"{kernel}.C", directions, H, N, 2)
        if B:
            add(f"{kernel}.B", 1, sets, N, 2)
        if beta:
            add(f"{block}.layer.layer.s", 1, H)
        add(f"{block}.layer.output_linear.0.weight", 2 * H, H, *((1,) if beta else ()))
        add(f"{block}.layer.output_linear.0.bias", 2 * H)
    add_norm("model.norm.norm")
    add("encoder.0.weight", *((VOCAB, H) if tokens else (H, 2)))
    if not tokens:
        add("encoder.0.bias", H)
    add("decoder.0.output_transform.weight", K, H)
    add("decoder.0.output_transform.bias", K)
    return found


def standalone(*, seed=0, depth=2):
    """A state dict of S4Model with the standalone S4D."""
    rng = np.random.default_rng(seed)
    shapes = {"encoder.weight": (H, 2), "encoder.bias": (H,), "decoder.weight": (K, H)}
    shapes |= {"decoder.bias": (K,)}
    for i in range(depth):
        shapes |= {
            f"s4_layers.{i}.D": (H,), f"s4_layers.{i}.kernel.C": (H, N, 2),
            f"s4_layers.{i}.kernel.log_dt": (H,), f"s4_layers.{i}.kernel.log_A_real": (H, N),
            f"s4_layers.{i}.kernel.A_imag": (H, N),
            f"s4_layers.{i}.output_linear.0.weight": (2 * H, H, 1),
            f"s4_layers.{i}.output_linear.0.bias": (2 * H,),
            f"norms.{i}.weight": (H,), f"norms.{i}.bias": (H,),
        }  # fmt: skip
    found = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    for i in range(depth):
        found[f"s4_layers.{i}.kernel.log_dt"] -= 3
    return found


# The network, by the names of theirs


def kernel(A, B, C, dt, length):
    """2 Re sum C B (e^{dt A} - 1) / A e^{dt A l} of one channel."""
    gain = C * B * np.expm1(dt * A) / A
    return np.array([2 * np.sum(gain * np.exp(dt * A * n)).real for n in range(length)])


def ssm(w, prefix, u, n_real, padded_length):
    """S4D on (L, H): two kernels on a circle of twice the padded length, where s filters them."""
    P = padded_length
    y, circle = np.zeros_like(u), np.arange(P + 1) / (2 * P)
    C = w[prefix + "C"].astype(float)
    C = C[..., 0] + 1j * C[..., 1]
    S = len(w[prefix + "A_real"])
    for h in range(H):
        A = -np.exp(w[prefix + "A_real"][h % S].astype(float)) - 1j * w[prefix + "A_imag"][h % S]
        B = np.ones(N)
        if prefix + "B" in w:
            B = w[prefix + "B"][0, h % S, :, 0] + 1j * w[prefix + "B"][0, h % S, :, 1]
        dt = softplus(float(w[prefix + "inv_dt"][h, 0]))
        around = np.zeros(2 * P)
        around[:P] = kernel(A, B, C[0, h], dt, P)
        if len(C) == 2:  # the one that looks ahead, from one step on
            around[P:] = kernel(A, B, C[1, h], dt, P)[::-1]
        beta = w.get(prefix.replace("kernel.", "s"), np.zeros((1, H)))[0, h]
        spectrum = np.fft.rfft(around) * (1 + circle) ** float(beta)
        signal = np.zeros(2 * P)
        signal[:n_real] = u[:n_real, h]
        long = np.fft.irfft(np.fft.rfft(signal) * spectrum, 2 * P)
        y[:, h] = long[: len(u)] + w[prefix.replace("kernel.", "D")][0, h] * signal[: len(u)]
    return y


def normed(w, name, x):
    if name + ".running_mean" in w:
        x = (x - w[name + ".running_mean"]) / np.sqrt(w[name + ".running_var"] + 1e-5)
    else:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * w[name + ".weight"] + w[name + ".bias"]


def mixed(w, name, y):
    """GLU of the 1x1 convolution of GELU."""
    g = y * (1 + erf(y / np.sqrt(2))) / 2
    z = g @ w[name + ".weight"].reshape(2 * H, H).T + w[name + ".bias"]
    return z[:, :H] / (1 + np.exp(-z[:, H:]))


def network(w, inputs, *, pool="mean", padded_length=L):
    """The outputs for one sequence."""
    w = {name: array.astype(float) for name, array in w.items()}
    x = w["encoder.0.weight"][inputs] if inputs.ndim == 1 else inputs @ w["encoder.0.weight"].T
    x = x + w.get("encoder.0.bias", 0)
    depth = len([name for name in w if name.endswith("kernel.C")])
    for i in range(depth):
        block = f"model.layers.{i}"
        y = normed(w, f"{block}.norm.norm", x)
        y = ssm(w, f"{block}.layer.layer.kernel.", y, len(inputs), padded_length)
        x = x + mixed(w, f"{block}.layer.output_linear.0", y)
    x = normed(w, "model.norm.norm", x)
    x = {"mean": x.mean(0), "last": x[-1], "none": x}[pool]
    return x @ w["decoder.0.output_transform.weight"].T + w["decoder.0.output_transform.bias"]


def close(found, exact):
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-5 * np.abs(exact).max())


@pytest.mark.parametrize(
    ("kind", "pool"),
    [
        ({}, "last"),
        ({"directions": 1, "beta": False, "B": True, "norm": "layer", "tokens": False}, "mean"),
        ({"sets": 2, "B": True, "beta": False}, "mean"),
        ({"sets": 4, "tokens": False}, "none"),
    ],
    ids=["freqbias", "s4-causal", "s4-sets", "per-step"],
)
def test_a_backbone_gives_the_outputs_of_its_own_names(kind, pool):
    weights, rng = backbone(**kind), np.random.default_rng(3)
    tokens = kind.get("tokens", True)
    series = [rng.integers(0, VOCAB, n) if tokens else rng.normal(size=(n, 2)) for n in (L, 5, 9)]
    model = from_torch(weights, pool=pool, padded_length=L)
    found = model.predict(series)
    for row, one in zip(found, series, strict=True):
        close(row, network(weights, one, pool=pool))
    assert model.cfg.model.bidirectional == (kind.get("directions") != 1)
    assert model.cfg.model.norm == kind.get("norm", "batch")
    assert model.head == ("per_step" if pool == "none" else "classification")


@pytest.mark.parametrize("prenorm", [False, True])
def test_the_standalone_model_gives_the_outputs_of_its_own_names(prenorm):
    weights, u = standalone(), np.random.default_rng(4).normal(size=(L, 2))
    w = {name: array.astype(float) for name, array in weights.items()}
    x = u @ w["encoder.weight"].T + w["encoder.bias"]
    for i in range(2):
        z, k = (normed(w, f"norms.{i}", x) if prenorm else x), f"s4_layers.{i}.kernel."
        y = np.zeros_like(x)
        for h in range(H):
            A = -np.exp(w[k + "log_A_real"][h]) + 1j * w[k + "A_imag"][h]
            C = w[k + "C"][h, :, 0] + 1j * w[k + "C"][h, :, 1]
            taps = kernel(A, 1, C, np.exp(w[k + "log_dt"][h]), L)
            y[:, h] = np.convolve(z[:, h], taps)[:L] + w[f"s4_layers.{i}.D"][h] * z[:, h]
        x = x + mixed(w, f"s4_layers.{i}.output_linear.0", y)
        x = x if prenorm else normed(w, f"norms.{i}", x)
    exact = x.mean(0) @ w["decoder.weight"].T + w["decoder.bias"]
    model = from_torch(weights, prenorm=prenorm)
    close(model.predict([u])[0], exact)
    stream = model.stream()  # it is causal, and has no filter
    close([stream.step(step) for step in u][-1], exact)


def test_held_numbers():
    """Of one block: what `network` said when the import was written."""
    weights = backbone(seed=5, depth=1)
    found = from_torch(weights, pool="last", padded_length=L).predict([np.arange(6)])[0]
    np.testing.assert_allclose(found, HELD, rtol=2e-5)


HELD = [-3.6376457319, -2.2953859303, 0.1672699669, -0.8417865430, -3.0779407554]


def test_it_is_kept_as_a_file_of_ours(tmp_path):
    weights = backbone()
    model = from_torch(weights, pool="last", padded_length=L)
    model.save(tmp_path / "mine.safetensors")
    again, ids = load(tmp_path / "mine.safetensors"), [np.arange(7), np.arange(3)]
    np.testing.assert_array_equal(again.predict(ids), model.predict(ids))
    assert again.classes == ("0", "1", "2", "3", "4")
    assert ssm_jax.from_torch is from_torch


def test_files_and_checkpoints_give_what_their_state_dict_gives(tmp_path, monkeypatch):
    weights = backbone(depth=1)
    how, ids = {"pool": "last", "padded_length": L}, [np.arange(7)]
    exact = from_torch(weights, **how).predict(ids)
    save_file(weights, tmp_path / "a.safetensors")
    np.savez(tmp_path / "a.npz", **weights)
    wrapped = {"state_dict": weights, "epoch": 3}
    for source in (tmp_path / "a.safetensors", str(tmp_path / "a.npz"), wrapped):
        np.testing.assert_array_equal(from_torch(source, **how).predict(ids), exact)

    class Tensor:
        """What torch has of the methods that are used."""

        def __init__(self, array):
            self.array = array

        def detach(self):
            return self

        def cpu(self):
            return self.array

    asked = {}

    def torch_load(path, **options):
        asked.update(options)
        return {"model": {name: Tensor(array) for name, array in weights.items()}}

    (tmp_path / "a.pt").write_bytes(b"pickle")
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(load=torch_load))
    np.testing.assert_array_equal(from_torch(tmp_path / "a.pt", **how).predict(ids), exact)
    assert asked["weights_only"] is True
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError, match=r"torch is not installed; .* safetensors\.torch"):
        from_torch(tmp_path / "a.pt")
    with pytest.raises(FileNotFoundError, match="is not there"):
        from_torch(tmp_path / "b.npz")


def changed(**names):
    """A state dict with some arrays added, or taken away where they are None."""
    found = backbone() | {name.replace("__", "."): array for name, array in names.items()}
    return {name: array for name, array in found.items() if array is not None}


KERNEL = "model.layers.0.layer.layer.kernel."


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"a.weight": np.ones(3)}, r"no weights of S4D .* among a\.weight"),
        ({**backbone(), KERNEL + "P": np.ones((1, 1, N, 2))}, r"kernel\.P: this is S4 with a low"),
        (
            {**backbone(), "model.layers.0.norm.norm.m": np.zeros(1)},
            r"norm\.m: .* \(TransposedLN\)",
        ),
        (changed(extra=np.ones(2)), "1 names are unknown, such as extra"),
        (changed(**{KERNEL + "inv_dt": None}), r"the weights lack .*kernel\.inv_dt"),
        (changed(**{KERNEL + "inv_dt": np.ones((H, N))}), r"one dt per channel"),
        (changed(decoder__0__output_transform__weight=None), "have no decoder"),
        (changed(model__norm__norm__weight=None), "do not fit together: .*norm/scale"),
        (changed(**{KERNEL + "C": np.ones((2, H, N + 1, 2))}), "the blocks differ in"),
    ],
)
def test_weights_of_another_kind_are_named(weights, message):
    with pytest.raises(ValueError, match=message):
        from_torch(weights, padded_length=L)


def test_filters_need_the_length_of_a_batch():
    with pytest.raises(ValueError, match="give padded_length="):
        from_torch(backbone())
