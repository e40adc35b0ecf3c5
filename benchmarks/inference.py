"""Whole sequences through a model, one by one, step by step, and from several Python threads."""

from concurrent.futures import ThreadPoolExecutor

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


class Step:
    """One step of a stream, its output written into an array that is there already."""

    params = ([1, 16],)
    param_names = ("batch",)

    def setup(self, batch):
        lstm, x = model_and_input((1, batch, 128, 128, 1, False), 1)
        self.stream, self.x = lstm.stream(batch), x[0]
        self.out = self.stream.step(self.x)

    def time_step(self, batch):
        self.stream.step(self.x, out=self.out)


class Concurrent:
    """Calls on one thread each, from one Python thread or two at once: half the time with two."""

    params = ([1, 2],)
    param_names = ("callers",)
    calls = 16

    def setup(self, callers):
        self.lstm, self.x = model_and_input((100, 8, 128, 128, 1, False), 1)
        self.lstm(self.x)
        self.pool = ThreadPoolExecutor(callers)

    def teardown(self, callers):
        self.pool.shutdown()

    def time_calls(self, callers):
        list(self.pool.map(self.lstm, [self.x] * self.calls))
