"""The benchmarks compare equals: same loss, same gradients, from every implementation they time."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tests.benchmarks import compare, models, peers
from tests.benchmarks.models import Shape

SMALL, TEXT = Shape(6, 3, 4, 5), Shape(6, 3, 4, 5, text=True)


@pytest.fixture(autouse=True)
def free_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nothing forced a BLAS kernel, whatever the environment of the suite says."""
    for name in compare.FORCING:
        monkeypatch.delenv(name, raising=False)


each_kind = pytest.mark.parametrize("kind", models.KINDS)


@pytest.mark.parametrize("dtype", models.DTYPES)
@pytest.mark.parametrize("way", ["plain", "tuned"])
def test_the_other_loops_have_the_gradients_of_the_lstm(way: str, dtype: str) -> None:
    peers.check_peers(way, SMALL, dtype)


@pytest.mark.parametrize("way", ["plain", "tuned"])
def test_a_benchmarked_loop_with_a_wrong_gradient_is_caught(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    right = peers.peers_pass(way, SMALL, "float64")

    def without_the_first_input_row() -> tuple[np.ndarray, ...]:
        dW, db, dx = right()
        dW[SMALL.H] = 0
        return dW, db, dx

    monkeypatch.setattr(peers, "peers_pass", lambda *_: without_the_first_input_row)
    with pytest.raises(AssertionError, match="Mismatched elements: 20 / 180"):
        peers.check_peers(way, SMALL, "float64")


@each_kind
@pytest.mark.parametrize("shape", [SMALL, TEXT], ids=["numbers", "text"])
def test_both_training_steps_start_at_the_same_loss_and_learn(kind: str, shape: Shape) -> None:
    pytest.importorskip("torch", reason="PyTorch is what rnnlab is compared with")
    ours, theirs = models.rnnlab_step(kind, shape, "float64"), models.torch_step(kind, shape, "float64")
    first, second = (ours(), theirs()), (ours(), theirs())
    assert first[0] == pytest.approx(first[1], rel=1e-12)
    assert max(second) < min(first)


@each_kind
def test_both_sample_the_same_scores(kind: str) -> None:
    pytest.importorskip("torch", reason="PyTorch is what rnnlab is compared with")
    one = Shape(3, 1, 4, 5, text=True)
    ours, theirs = models.rnnlab_sampling(kind, one, "float64"), models.torch_sampling(kind, one, "float64")
    for _ in range(2):  # the second run continues from the first one's state
        np.testing.assert_allclose(ours(), theirs().numpy(), rtol=0, atol=1e-14)


@each_kind
def test_both_passes_give_the_same_input_gradient(kind: str) -> None:
    pytest.importorskip("torch", reason="PyTorch is what rnnlab is compared with")
    ours, theirs = models.rnnlab_pass(kind, SMALL, "float64"), models.torch_pass(kind, SMALL, "float64")
    for _ in range(2):  # the second run must not add to the first
        np.testing.assert_allclose(ours(), theirs().numpy(), rtol=0, atol=1e-14)


def test_the_quick_run_prints_every_table_but_the_threads(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="PyTorch is what rnnlab is compared with")
    compare.main(["--quick", "--only", "pass,step,floor,profile,peers,growth,import"])
    printed = capsys.readouterr().out
    titles = [line for line in printed.splitlines() if line.startswith("## ")]
    assert len(titles) == 10
    assert "nan" not in printed
    assert "matplotlib not imported" in printed
    assert "BLAS kernel: " in printed


@pytest.mark.parametrize("name", ["OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"])
def test_a_forced_blas_kernel_is_refused_before_anything_is_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setenv(name, "Haswell")
    with pytest.raises(SystemExit, match=f"env -u {name} python -m tests.benchmarks"):
        compare.main(["--quick", "--only", "peers"])
    assert not capsys.readouterr().out


def test_without_torch_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit, match=r"rnnlab\[interop\]"):
        compare.main(["--quick", "--only", "step"])


def test_an_unknown_section_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        compare.main(["--only", "speed"])
    assert "got speed" in capsys.readouterr().err
