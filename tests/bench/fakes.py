"""Engines with faults. They run in processes of their own, which import this module."""

import os
import time

import numpy as np

from numba_lstm.bench.engines import NumbaLSTM


class Slow(NumbaLSTM):
    def infer(self):
        time.sleep(0.1)
        return super().infer()


class Chatty(NumbaLSTM):
    """Prints where replies are written."""

    def infer(self):
        print("progress", flush=True)
        os.write(1, b"progress")
        return super().infer()


class Raising(NumbaLSTM):
    def __init__(self, task):
        raise RuntimeError("this engine\nlacks something")


class Crashing(NumbaLSTM):
    """Ends its process in the first round."""

    def time_round(self, seconds):
        os._exit(3)


class Absent(NumbaLSTM):
    packages = ("numpy", "no_such_package", "nor_this_one")


class SinglePrecision(NumbaLSTM):
    dtypes = frozenset({"float32"})


class InferenceOnly(NumbaLSTM):
    modes = frozenset({"inference"})


class Wrong(NumbaLSTM):
    """One gradient in a thousand is a little off."""

    def results(self):
        found = super().results()
        found["dweight_hh_l0"].flat[7] += 1e-3 * np.abs(found["dweight_hh_l0"]).max()
        return found


class NaN(NumbaLSTM):
    def results(self):
        found = super().results()
        found["c"].flat[-1] = np.nan
        return found


class Turns(NumbaLSTM):
    """Writes down when it runs; where, the thread variable of another library tells."""

    label = "turns"

    @classmethod
    def environment(cls, threads):
        return {"TURNS": os.environ["TURNS_FILE"]}

    def _write(self, event):
        with open(os.environ["TURNS"], "a") as file:  # noqa: PTH123
            file.write(f"{self.label} {event} {os.environ['OMP_NUM_THREADS']}\n")

    def time_round(self, seconds):
        self._write("begins")
        samples = super().time_round(seconds)
        self._write("ends")
        return samples


class OtherTurns(Turns):
    label = "other"
