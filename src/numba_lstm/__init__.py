"""The fastest LSTM on a CPU, in Python with Numba: NumPy arrays in, NumPy arrays out."""

__version__ = "0.1.0"
