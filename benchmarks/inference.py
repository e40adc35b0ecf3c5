"""Whole sequences through a model."""

from .shapes import INFERENCE, model_and_input


class Inference:
    """One call, results written into arrays that are there already."""

    params = (list(INFERENCE), [1, 2])
    param_names = ("shape", "threads")

    def setup(self, shape, threads):
        self.lstm, self.x = model_and_input(INFERENCE[shape], threads)
        self.out = self.lstm(self.x)

    def time_call(self, shape, threads):
        self.lstm(self.x, out=self.out)
