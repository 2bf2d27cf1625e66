"""All ways to one kernel, and to one scan, agree with float64; none is timed for another result."""

import pytest

from benchmarks.kernels import (
    CONVOLUTIONS,
    DPLR,
    SCANS,
    SPECTRA,
    measure_convolution,
    measure_dplr,
    measure_scan,
    measure_spectrum,
)


@pytest.mark.parametrize("form", SPECTRA)
def test_every_form_computes_the_spectrum(form):
    row = measure_spectrum(form, length=257, channels=5, modes=16, alpha=3.0, n=2)
    assert row["rms_error"] < (1e-6 if form == "blocked powers" else 1e-4)
    assert row["call_ms"]["min"] > 0


@pytest.mark.parametrize("form", SCANS)
def test_every_form_computes_the_states(form):
    row = measure_scan(form, length=257, batch=2, modes=16, alpha=3.0, n=2)
    assert row["rms_error"] < (1e-4 if form.startswith("jax") else 1e-6)
    assert row["call_ms"]["min"] > 0


@pytest.mark.parametrize("form", DPLR)
@pytest.mark.parametrize("length", [17, 64])
def test_every_form_computes_the_kernel_of_s4(form, length):
    """An even length has a root of unity at -1, where s is infinite."""
    row = measure_dplr(form, length=length, channels=5, modes=8, alpha=1.0, n=2)
    assert row["rms_error"] < (1e-4 if form.startswith("Cauchy") else 1e-5)
    assert row["call_ms"]["min"] > 0


@pytest.mark.parametrize("form", CONVOLUTIONS)
def test_every_form_computes_the_convolution(form):
    row = measure_convolution(form, length=64, batch=2, channels=3, n=2)
    assert row["rms_error"] < 1e-6
    assert row["call_ms"]["min"] > 0
