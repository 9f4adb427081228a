"""FANN, through its C library: incremental training, one sample after the other in its own C loop.

It knows neither ReLU nor softmax with cross-entropy. It is given the cheapest it has instead: hidden units that are
linear between two bounds, sigmoid outputs from its table, squared errors.
"""

import ctypes
import ctypes.util
import re
import time
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.peers import RATE

NAME = "FANN"
INTERPRETED = False
# Where fann_type is float: both libraries are the same under another name.
LIBRARIES = ("floatfann", "fann")
# fann_data.h
INCREMENTAL, LINEAR_ERROR, SIGMOID_STEPWISE, LINEAR_PIECE = 0, 0, 4, 12


def available() -> str | None:
    """FANN's version as the library's file name tells it, if the library is installed."""
    library = _library()
    if library is None:
        return None
    found = re.search(r"\.so\.([\d.]+)$", str(_file_of(library)))
    return found[1] if found else "of unknown version"


def environment(threads: int) -> dict[str, str]:
    """Nothing: it has one thread."""
    return {}


def takes(batch: int, threads: int) -> bool:
    """Its incremental training is batch size 1, in one thread."""
    return batch == 1 and threads == 1


class _Rows(ctypes.Structure):
    """struct fann_train_data of fann_train.h: an array of row pointers each for inputs and outputs."""

    _fields_ = (
        ("error", ctypes.c_int),
        ("error_log", ctypes.c_void_p),
        ("error_text", ctypes.c_char_p),
        ("rows", ctypes.c_uint),
        ("inputs", ctypes.c_uint),
        ("outputs", ctypes.c_uint),
        ("input", ctypes.c_void_p),
        ("output", ctypes.c_void_p),
    )


class Peer:
    """An epoch is fann_train_epoch; before it the pointers to the rows are put in a new order, not the rows."""

    def __init__(self, sizes, batch, x, y, threads):
        self.fann = _library()
        self.x, self.targets = x, np.eye(sizes[-1], dtype=np.float32)[y]
        self.places = [_row_pointers(self.x), _row_pointers(self.targets)]
        self.shuffled = [place.copy() for place in self.places]
        inputs, outputs = (place.ctypes.data for place in self.shuffled)
        self.rows = _Rows(0, None, None, len(x), sizes[0], sizes[-1], inputs, outputs)
        self._check_rows(len(x), sizes)
        self.random = np.random.default_rng(0)
        self.net = ctypes.c_void_p(
            self.fann.fann_create_standard_array(len(sizes), (ctypes.c_uint * len(sizes))(*sizes))
        )
        self.fann.fann_set_training_algorithm(self.net, INCREMENTAL)
        self.fann.fann_set_train_error_function(self.net, LINEAR_ERROR)
        self.fann.fann_set_activation_function_hidden(self.net, LINEAR_PIECE)
        self.fann.fann_set_activation_function_output(self.net, SIGMOID_STEPWISE)
        self.fann.fann_set_learning_rate(self.net, ctypes.c_float(RATE))

    def _check_rows(self, rows: int, sizes) -> None:
        """That this version of the library reads the structure as it was filled."""
        data = ctypes.byref(self.rows)
        names = ("fann_length_train_data", "fann_num_input_train_data", "fann_num_output_train_data")
        if [getattr(self.fann, name)(data) for name in names] != [rows, sizes[0], sizes[-1]]:
            raise RuntimeError("this version of FANN has another struct fann_train_data than 2.2")

    def epoch(self) -> float:
        """Train on all rows once; the seconds it took."""
        began = time.perf_counter()
        order = self.random.permutation(len(self.x))
        for place, shuffled in zip(self.places, self.shuffled, strict=True):
            np.take(place, order, out=shuffled)
        self.fann.fann_train_epoch(self.net, ctypes.byref(self.rows))
        return time.perf_counter() - began

    def __del__(self):
        if hasattr(self, "net"):
            self.fann.fann_destroy(self.net)


def _row_pointers(matrix: np.ndarray) -> np.ndarray:
    """The address of each row."""
    return matrix.ctypes.data + np.arange(len(matrix), dtype=np.uintp) * np.uintp(matrix.strides[0])


@cache
def _library() -> ctypes.CDLL | None:
    for name in LIBRARIES:
        file = ctypes.util.find_library(name)
        if file is None:
            continue
        library = ctypes.CDLL(file)
        library.fann_create_standard_array.restype = ctypes.c_void_p
        library.fann_train_epoch.restype = ctypes.c_float
        for function in ("fann_length_train_data", "fann_num_input_train_data", "fann_num_output_train_data"):
            getattr(library, function).restype = ctypes.c_uint
        return library
    return None


def _file_of(library: ctypes.CDLL) -> Path:
    """The file that a library was loaded from, where the system tells; else the name it was asked for."""
    maps = Path("/proc/self/maps")
    if maps.exists():
        for line in maps.read_text().splitlines():
            if library._name.split(".so")[0] in line:
                return Path(line.split()[-1]).resolve()
    return Path(library._name)
