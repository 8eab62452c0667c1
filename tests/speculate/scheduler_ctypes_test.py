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


class Point(ctypes.Structure):
    _fields_ = [("n", ctypes.c_int32), ("seconds", ctypes.c_double)]


class Config(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_uint32), ("policy", ctypes.c_char_p), ("max_sequences", ctypes.c_int32),
                ("verify", ctypes.POINTER(Point)), ("n_verify", ctypes.c_int32),
                ("draft", ctypes.POINTER(Point)), ("n_draft", ctypes.c_int32),
                ("draft_short", ctypes.POINTER(Point)), ("n_draft_short", ctypes.c_int32),
                ("draft_length", ctypes.c_int32), ("context_s", ctypes.c_double), ("row_context_s", ctypes.c_double),
                ("overhead_s", ctypes.c_double)]


class Load(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_uint32), ("n_sequences", ctypes.c_int32), ("n_unready", ctypes.c_int32),
                ("max_block", ctypes.c_int32), ("prompt_rows", ctypes.c_int32)]


class Step(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_uint32), ("n_sequences", ctypes.c_int32), ("stride", ctypes.c_int32),
                ("sequence_ids", ctypes.POINTER(ctypes.c_uint64)), ("n_drafts", ctypes.POINTER(ctypes.c_int32)),
                ("n_asked", ctypes.POINTER(ctypes.c_int32)), ("confidence", ctypes.POINTER(ctypes.c_float)),
                ("evidence", ctypes.POINTER(ctypes.c_float)), ("evidence_kind", ctypes.c_int32),
                ("must_not_anticipate", ctypes.POINTER(ctypes.c_uint8)), ("draft_length", ctypes.c_int32),
                ("prompt_rows", ctypes.c_int32), ("context", ctypes.c_int64), ("prompt_context", ctypes.c_int64),
                ("prompt_row_context", ctypes.c_int64)]


class Outcome(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_uint32), ("n_sequences", ctypes.c_int32),
                ("n_verified", ctypes.POINTER(ctypes.c_int32)), ("n_accepted", ctypes.POINTER(ctypes.c_int32)),
                ("verify_seconds", ctypes.c_double), ("draft_seconds", ctypes.c_double),
                ("commit_seconds", ctypes.c_double)]


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


def sized(kind, **fields):
    """A struct that says how large it is."""
    return kind(struct_size=ctypes.sizeof(kind), **fields)


class Handle:
    """A scheduler with its history; a call that fails raises ValueError."""

    def __init__(self, policy, verify, draft):
        self.pointer = ctypes.c_void_p()
        config = sized(Config, policy=policy.encode(), max_sequences=4, verify=array(Point, verify), n_verify=len(verify),
                       draft=array(Point, draft), n_draft=len(draft), draft_length=4)
        self.call("create", ctypes.byref(config), ctypes.byref(self.pointer), handle=False)

    def call(self, name, *arguments, handle=True):
        error = Error()
        first = [self.pointer] if handle else []
        if getattr(LIBRARY, "dspark_sched_" + name)(*first, *arguments, ctypes.byref(error)) != 0:
            raise ValueError(error.message.decode())

    def draft_length(self, **load):
        length = ctypes.c_int32(-1)
        self.call("draft_length_for", ctypes.byref(sized(Load, **load)), ctypes.byref(length))
        return length.value

    def plan(self, confidences, **fields):
        n, stride = len(confidences), len(confidences[0])
        self.lengths = (ctypes.c_int32 * n)()
        step = sized(Step, n_sequences=n, stride=stride, sequence_ids=array(ctypes.c_uint64, range(1, n + 1)),
                     n_drafts=array(ctypes.c_int32, [stride] * n),
                     confidence=array(ctypes.c_float, [c for row in confidences for c in row]), draft_length=stride, **fields)
        self.call("plan", ctypes.byref(step), self.lengths)
        return list(self.lengths)

    def observe(self, accepted, **fields):
        outcome = sized(Outcome, n_sequences=len(accepted), n_verified=self.lengths,
                        n_accepted=array(ctypes.c_int32, accepted), **fields)
        self.call("observe", ctypes.byref(outcome))

    def close(self):
        LIBRARY.dspark_sched_destroy(self.pointer)


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

    def test_one_step_of_a_handle(self):
        handle = Handle("adaptive", [(1, 0.010), (8, 0.010), (9, 1.0), (128, 9.0)], [(1, 0.001)])
        self.addCleanup(handle.close)
        self.assertEqual(handle.draft_length(n_sequences=2, max_block=4, n_unready=2), 0)
        self.assertEqual(handle.draft_length(n_sequences=2, max_block=4, prompt_rows=100), 0)
        self.assertGreater(handle.draft_length(n_sequences=2, max_block=4), 0)
        # Eight rows are free: two anchors, two rows of a prompt, four drafts.
        self.assertEqual(handle.plan([[0.9] * 4, [0.2] * 4], prompt_rows=2, prompt_context=500, prompt_row_context=1000), [4, 0])
        with self.assertRaisesRegex(ValueError, "commit_seconds"):
            handle.observe([2, 0], verify_seconds=0.010, draft_seconds=0.001, commit_seconds=-1.0)
        handle.observe([2, 0], verify_seconds=0.010, draft_seconds=0.001, commit_seconds=0.0001)
        with self.assertRaisesRegex(ValueError, "n_unready"):
            handle.draft_length(n_sequences=2, max_block=4, n_unready=3)

    def test_messages_name_the_field(self):
        with self.assertRaisesRegex(ValueError, r"survival\[0\]\[0\]: want 0 to 1"):
            lengths_of(LIBRARY.dspark_sched_allot, [[1.5]], 1)


if __name__ == "__main__":
    unittest.main()
