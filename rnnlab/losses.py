"""Losses: (prediction, target, mask) -> (loss, dL/dprediction), means over what the mask keeps."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnlab.ops import Array, log_softmax, sigmoid
from rnnlab.validate import DTYPES, check_shape, describe, float_array, label_array, to_array


def mask_array(mask: object, shape: tuple[int, ...]) -> Array:
    """The mask as booleans of this shape, everything where it is None.

    Raises TypeError for entries that are not booleans (or zeros and ones), ValueError for another
    shape or a mask that keeps nothing.
    """
    if mask is None:
        return np.ones(shape, bool)
    array = to_array("mask", mask)
    if array.dtype != bool and not (array.dtype.kind in "iuf" and np.isin(array, (0, 1)).all()):
        raise TypeError(f"mask: expected booleans (or zeros and ones), got {describe(mask)}")
    check_shape("mask", array, [("TB"[n] if len(shape) == 2 else f"axis {n}", m) for n, m in enumerate(shape)])
    if not array.any():
        raise ValueError(
            f"mask: expected at least one entry that is kept, got a mask of shape {array.shape} that keeps none"
        )
    return array.astype(bool)


def softmax_cross_entropy(prediction: Array, target: Array, mask: Array | None = None) -> tuple[Any, Array]:
    """mean over kept (t, b) of -log softmax(prediction)[target], in nats (divide by ln 2 for bits).

    Parameters
    ----------
    prediction : (T, B, O) floats
    target : (T, B) integers 0 .. O-1; what stands where the mask keeps nothing does not matter
    mask : (T, B), None for all

    Returns
    -------
    (loss, (softmax - one_hot(target)) / number kept): the loss and its derivative by the prediction.

    Raises
    ------
    TypeError, ValueError
        For what does not fit.
    FloatingPointError
        Where the loss overflows.
    """
    prediction = _prediction(prediction)
    keep = mask_array(mask, prediction.shape[:-1])
    target = labels("target", target, keep, prediction)
    # Overflow is -inf, whose exp is the right 0, and reported below where a target picks it.
    with np.errstate(over="ignore", under="ignore"):
        log_p = log_softmax(prediction)
        index = target[..., None].astype(np.intp)
        picked = np.take_along_axis(log_p, index, axis=-1)[..., 0]
        count = int(keep.sum())
        d = np.exp(log_p)
        np.put_along_axis(d, index, 0, axis=-1)  # p - 1 is minus the others' sum, which no rounding near p = 1 erases
        np.put_along_axis(d, index, -d.sum(axis=-1, keepdims=True), axis=-1)
        d *= (keep / d.real.dtype.type(count))[..., None].astype(d.real.dtype)
        loss = -picked[keep].sum() / count
    return _finite(loss), d


def mean_squared_error(prediction: Array, target: Array, mask: Array | None = None) -> tuple[Any, Array]:
    """mean over kept (t, b) and all outputs of (prediction - target)^2.

    Parameters
    ----------
    prediction : (T, B, O) floats
    target : (T, B, O) floats; what stands where the mask keeps nothing does not matter
    mask : (T, B), None for all

    Returns
    -------
    (loss, 2 (prediction - target) / (number kept * O)): the loss and its derivative by the prediction.

    Raises
    ------
    TypeError, ValueError
        For what does not fit.
    FloatingPointError
        Where the loss overflows.
    """
    prediction = _prediction(prediction)
    keep = mask_array(mask, prediction.shape[:-1])
    target = values("target", target, keep, prediction)
    count = int(keep.sum()) * prediction.shape[-1]
    with np.errstate(over="ignore", under="ignore"):  # the first is reported below
        error = np.where(keep[..., None], prediction - target, 0)
        loss = (error**2).sum() / count
        d = error * prediction.real.dtype.type(2 / count)
    return _finite(loss), d


def sigmoid_cross_entropy(prediction: Array, target: Array, mask: Array | None = None) -> tuple[Any, Array]:
    """mean over kept (t, b) and all outputs of -y log p - (1 - y) log(1 - p), p = sigmoid(prediction), in nats.

    For O yes-or-no questions.

    Parameters
    ----------
    prediction : (T, B, O) floats
    target : y (T, B, O) floats from 0 to 1; what stands where the mask keeps nothing does not matter
    mask : (T, B), None for all

    Returns
    -------
    (loss, (p - y) / (number kept * O)): the loss and its derivative by the prediction. Raises as `mean_squared_error`,
    and ValueError for a target outside [0, 1].
    """
    z = _prediction(prediction)
    keep = mask_array(mask, z.shape[:-1])
    y = values("target", target, keep, z)
    if y.real.min() < 0 or y.real.max() > 1:
        raise ValueError(f"target: expected numbers from 0 to 1, got {y.real.min():g} to {y.real.max():g}")
    count, above = int(keep.sum()) * z.shape[-1], z.real >= 0
    with np.errstate(over="ignore", under="ignore"):
        # -y log p - (1 - y) log(1 - p) = max(z, 0) - z y + log(1 + exp(-|z|)), where exp cannot overflow
        each = np.where(above, z, 0) - z * y + np.log1p(np.exp(np.where(above, -z, z)))
        loss = np.where(keep[..., None], each, 0).sum() / count
        d = np.where(keep[..., None], sigmoid(z) - y, 0) * z.real.dtype.type(1 / count)
    return _finite(loss), d


def checked_loss(result: object, prediction: Array, steps: Array, mask: Array | None = None) -> tuple[Any, Array]:
    """What a loss returned, (loss, d_prediction); `steps` are the time steps that it read, `mask` what it was given.

    TypeError or ValueError for anything else, FloatingPointError, with the place, for what is not finite.
    """
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(f"loss: expected it to return (loss, d_prediction), got {describe(result)}")
    loss, d = result
    if np.ndim(loss) or not isinstance(loss, int | float | complex | np.number | np.ndarray):
        raise TypeError(f"loss: expected a number and its derivative, got {describe(loss)}")
    if not isinstance(d, np.ndarray) or d.dtype.kind not in "fc":
        raise TypeError(f"loss: expected a derivative, an array of floats, got {describe(d)}")
    if d.shape != prediction.shape:
        raise ValueError(f"loss: expected a derivative of the prediction's shape {prediction.shape}, got {d.shape}")
    if not np.isfinite(loss):
        raise FloatingPointError(f"loss: expected a finite number, got {loss}")
    if not np.isfinite(d).all():
        t, b, *_ = index = tuple(np.argwhere(~np.isfinite(d))[0].tolist())
        raise FloatingPointError(
            f"loss: expected a finite derivative, got {d[index]} at time step {steps[t]}, sequence {b}"
        )
    if mask is not None and (wrong := np.argwhere((d != 0).any(axis=-1) & ~mask)).size:
        t, b = wrong[0].tolist()
        raise ValueError(
            f"loss: expected a derivative of 0 where the mask is 0, got {d[t, b].tolist()!s:.60} at time step "
            f"{steps[t]}, sequence {b}; does the function use its third argument?"
        )
    return loss, d


def labels(name: str, target: object, keep: Array, prediction: Array) -> Array:
    """The targets of `softmax_cross_entropy`, with 0 where the mask keeps nothing; TypeError, ValueError for others."""
    array = to_array(name, target)
    if array.dtype.kind in "iu" and array.shape == keep.shape:
        array = np.where(keep, array, 0)
    return label_array(name, array, _axes(keep.shape), prediction.shape[-1])


def values(name: str, target: object, keep: Array, prediction: Array) -> Array:
    """The targets of the two other losses, with 0 where the mask keeps nothing; TypeError, ValueError for others."""
    array = to_array(name, target)
    if array.dtype.kind in "fc" and array.shape == prediction.shape:
        array = np.where(keep[..., None], array, 0)
    return float_array(name, array, _axes(prediction.shape), prediction.dtype)


TARGETS: dict[Any, tuple[Any, int]] = {  # how each loss checks its target, and how many axes that has
    softmax_cross_entropy: (labels, 2),
    mean_squared_error: (values, 3),
    sigmoid_cross_entropy: (values, 3),
}


def _finite(loss: Any) -> Any:
    if not np.isfinite(loss):
        raise FloatingPointError(f"loss: expected a finite number, got {loss}")
    return loss


def _axes(shape: tuple[int, ...]) -> list[tuple[str, int | None]]:
    letters = "TBO" if len(shape) in (2, 3) else [f"axis {n}" for n in range(len(shape))]
    return [(letters[n], m) for n, m in enumerate(shape)]


def _prediction(prediction: Array) -> Array:
    array = to_array("prediction", prediction)
    if array.ndim < 2:
        raise ValueError(f"prediction: expected shape (T, B, O) or (..., O), got {array.shape}")
    return float_array(
        "prediction", array, _axes(array.shape), array.dtype if array.dtype in DTYPES else np.dtype(float)
    )
