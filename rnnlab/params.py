"""Parameters: plain attributes of their layer, and `params`, a live view of them by name."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from rnnlab.init import Initializer, initializer
from rnnlab.ops import Array
from rnnlab.tables import html_table
from rnnlab.validate import check_finite, check_param, check_params, entry_of, float_array, float_dtype

SHAPE_LETTERS = "TBDHKSEO"


class Parameterized:
    """What has parameters and can be copied with others: a layer, or a model of several."""

    @property
    def params(self) -> Params:
        """The parameters by name: a live view, in which `params["W_h"] = array` is `cell.W_h = array`."""
        raise NotImplementedError

    def with_params(self, params: Mapping[str, Array]) -> Self:
        """A copy with copies of these parameters (all of them, complex included).

        Raises ValueError where a name is missing or unknown or a shape differs, TypeError for a
        parameter that is not of floats.
        """
        check_params(params, self.params)
        other = copy.copy(self)
        other.params.update({name: np.array(p) for name, p in params.items()})
        return other

    def astype(self, dtype: npt.DTypeLike) -> Self:
        """A copy computing in `dtype`: float32, float64, or complex for derivative checks."""
        return self.with_params({name: p.astype(float_dtype(dtype)) for name, p in self.params.items()})


class Layer(Parameterized):
    """A cell, a readout or an embedding. Each parameter is a plain attribute, made by `add_param`.

    Assigning to a parameter takes an array of floats of the same shape. Any other attribute may be set, but for one
    that differs from a parameter's name in upper and lower case alone (`cell.w_h = 3`): that is an AttributeError.
    The shape letters are an exception: `cell.B = 3` is allowed beside a parameter b.
    """

    rng: np.random.Generator
    _dtype: np.dtype[Any]
    bias: bool = True
    _names: tuple[str, ...] = ()  # of the parameters, in the order in which they were added

    def add_param(self, name: str, init: str | Initializer, shape: tuple[int, ...]) -> None:
        """Draw a further parameter of this layer, from its generator and in its dtype.

        Where the layer has no biases, one named "b" or "b_..." is a constant 0 and no parameter.

        Parameters
        ----------
        name : the attribute that it becomes, and its name in `params`
        init : the name of an initializer, or a function (shape, rng) -> array
        shape : its shape

        Returns
        -------
        None. Raises TypeError or ValueError for a name that is taken and for an array that does not fit.
        """
        if not isinstance(name, str) or not name.isidentifier() or hasattr(Layer, name):
            raise ValueError(f"name: expected a new attribute's name, such as 'W_u', got {name!r}")
        if not hasattr(self, "rng"):
            raise TypeError(
                f"{type(self).__name__}: expected super().__init__ before add_param({name!r}), got no such call"
            )
        if self.leaves_out(name):
            vars(self)[name] = zeros = np.zeros(shape, np.float32)  # which leaves every dtype as it is
            zeros.flags.writeable = False
            return
        drawn = initializer("init", init)(shape, self.rng)
        axes = [(f"axis {n}", length) for n, length in enumerate(shape)]
        vars(self)[name] = np.array(float_array(name, drawn, axes, self._dtype))
        self._names = tuple(dict.fromkeys((*self._names, name)))

    def leaves_out(self, name: str) -> bool:
        """Whether it is a bias, "b" or "b_...", of a layer without biases."""
        return not self.bias and name.split("_")[0] == "b"

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._names:
            check_param(f"params[{name!r}]", value, getattr(self, name))
            super().__setattr__(name, value)
            self._dtype = np.result_type(*self.params.values())
            return
        for known in self._names:
            if name.lower() == known.lower() and name not in SHAPE_LETTERS:
                raise AttributeError(f"{type(self).__name__} has no parameter {name!r}: write {known!r}")
        super().__setattr__(name, value)

    @property
    def parts(self) -> dict[str, Layer]:
        """The layers that own the parameters, by the prefix of their names in `params`: here {"": self}."""
        return {"": self}

    @property
    def params(self) -> Params:
        return Params({"": self})

    @property
    def dtype(self) -> np.dtype[Any]:
        """The parameters' common dtype, in which everything is computed."""
        return self._dtype

    def check_computed(self, computed: Mapping[str, Array], given: Mapping[str, Array] | None = None) -> None:
        """FloatingPointError that names the first of these arrays with a number that is not finite.

        Where a parameter, or what the layer was `given`, was not finite before, ValueError names that.
        """
        for what, array in computed.items():
            if not np.isfinite(array).all():
                for name, value in {**(given or {}), **{f"params[{n!r}]": p for n, p in self.params.items()}}.items():
                    check_finite(name, value)
                raise FloatingPointError(f"{type(self).__name__}: {what} is not finite")

    def _repr_html_(self) -> str:
        """A table for notebooks: each parameter with its shape."""
        rows = [(name, " x ".join(map(str, p.shape)), p.size) for name, p in self.params.items()]
        return html_table(("parameter", "shape", "numbers"), rows, repr(self))


class Params(MutableMapping[str, Array]):
    """A live view of the parameters of one layer or of several ("cells.0.W_x", "readout.b").

    Reading gives the live array. Assigning checks its name, shape and dtype and puts the array itself in place;
    `update` checks all before it assigns the first. Names cannot be added or deleted. `|` gives a dict.
    """

    def __init__(self, layers: Mapping[str, Layer]) -> None:
        self._places = {
            ".".join(filter(None, (prefix, part, name))): (owner, name)
            for prefix, layer in layers.items()
            for part, owner in layer.parts.items()
            for name in owner._names
        }

    def __getitem__(self, name: str) -> Array:
        layer, attribute = entry_of("params", self._places, name)
        array: Array = vars(layer)[attribute]
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __setitem__(self, name: str, value: Array) -> None:
        self.update({name: value})

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"params: {name!r} cannot be deleted; a layer has all of its parameters")

    def update(self, *args: Any, **named: Array) -> None:
        """Assign some or all of the parameters, from a mapping such as `np.load(path)`: all at once or none."""
        values = dict(*args, **named)
        if unknown := [name for name in values if name not in self._places]:
            raise ValueError(
                f"params: expected names from {list(self)}, got {unknown}; in a cell of yours, `add_param` adds one"
            )
        for name, value in values.items():
            check_param(f"params[{name!r}]", value, self[name])
        for name, value in values.items():
            layer, attribute = self._places[name]
            setattr(layer, attribute, value)

    def __or__(self, other: Mapping[str, Array]) -> dict[str, Array]:
        return {**self, **other}

    def __ror__(self, other: Mapping[str, Array]) -> dict[str, Array]:
        return {**other, **self}

    def __repr__(self) -> str:
        return f"Params({', '.join(f'{name} {p.shape}' for name, p in self.items())})"
