#!/usr/bin/env python3
"""The shared scheduler library from Python, with nothing but ctypes: also an example of how to bind it.

    DSPARK_SCHEDULER=build/release/libdspark_scheduler.so tests/speculate/scheduler_ctypes_test.py
"""

import ctypes
import os
import unittest


class Error(ctypes.Structure):
    _fields_ = [("status", ctypes.c_int32), ("message", ctypes.c_char * 252)]


class Batch(ctypes.Structure):
    _fields_ = [("survival", ctypes.POINTER(ctypes.c_double)), ("n_drafts", ctypes.POINTER(ctypes.c_int32)),
                ("n_sequences", ctypes.c_int32), ("stride", ctypes.c_int32)]


class Costs(ctypes.Structure):
    _fields_ = [("seconds", ctypes.POINTER(ctypes.c_double)), ("n_seconds", ctypes.c_int32),
                ("extra_rows", ctypes.c_int32)]


LIBRARY = ctypes.CDLL(os.environ["DSPARK_SCHEDULER"])


def array(kind, values):
    return (kind * len(values))(*values)


def batch_of(confidences):
    """Rows of confidences as survival probabilities."""
    survival = []
    for row in confidences:
        product = 1.0
        for confidence in row:
            product *= confidence
            survival.append(product)
    return Batch(array(ctypes.c_double, survival), array(ctypes.c_int32, [len(row) for row in confidences]),
                 len(confidences), len(confidences[0]))


def lengths_of(function, confidences, *args):
    batch, error = batch_of(confidences), Error()
    lengths = (ctypes.c_int32 * batch.n_sequences)()
    status = function(ctypes.byref(batch), *args, lengths, *([None] if function is LIBRARY.dspark_sched_causal else []),
                      ctypes.byref(error))
    if status != 0:
        raise ValueError(error.message.decode())
    return list(lengths)


class SchedulerTest(unittest.TestCase):
    def test_version(self):
        self.assertEqual(LIBRARY.dspark_sched_abi_version(), 1)

    def test_appendix_a(self):
        """The paper's example: passes of 1, 2, 3 rows reach 1, .5, .45 passes a second."""
        seconds = [1.0, 1.0, 1 / 0.5, 1 / 0.45]
        costs = Costs(array(ctypes.c_double, seconds), len(seconds), 0)
        self.assertEqual(lengths_of(LIBRARY.dspark_sched_causal, [[0.8, 0.9]], ctypes.byref(costs)), [0])
        budget, batch = ctypes.c_int32(-1), batch_of([[0.8, 0.9]])
        self.assertEqual(LIBRARY.dspark_sched_budget(ctypes.byref(batch), ctypes.byref(costs), ctypes.byref(budget), None), 0)
        self.assertEqual(budget.value, 2)
        self.assertEqual(lengths_of(LIBRARY.dspark_sched_allot, [[0.8, 0.9]], budget), [2])

    def test_likely_drafts_first(self):
        confidences = [[0.5, 0.5, 0.5], [0.9, 0.9, 0.9]]
        self.assertEqual([lengths_of(LIBRARY.dspark_sched_allot, confidences, k) for k in (1, 3, 4)],
                         [[0, 1], [0, 3], [1, 3]])

    def test_messages_name_the_field(self):
        with self.assertRaisesRegex(ValueError, r"survival\[0\]\[0\]: want 0 to 1"):
            lengths_of(LIBRARY.dspark_sched_allot, [[1.5]], 1)


if __name__ == "__main__":
    unittest.main()
