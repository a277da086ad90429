"""CSVs of many MB, and rows without an end, in bounded memory."""

import re
import subprocess
import sys

import pytest

from tests.support.environment import ROOT, SOAK

pytestmark = pytest.mark.slow

# A file of so many MB, made while it is read: `first`, then `again` over and over.
READ_LARGE_FILE = """
import io, sys, time
from retrain_api.errors import InvalidDatasetError
from retrain_api.ingest.dataset import prepare

class Long(io.RawIOBase):
    def __init__(self, first, again, size):
        self.first, self.again, self.size, self.at = first, again, size, 0
    def seek(self, at): self.at = at
    def read(self, size):
        start, self.at = self.at, min(self.at + size, self.size)
        if start < len(self.first):
            self.at = min(self.at, len(self.first))
            return self.first[start:self.at]
        skip = (start - len(self.first)) % len(self.again)
        want = self.at - start
        return (self.again[skip:] + self.again * (want // len(self.again) + 1))[:want]

first, again = eval(sys.argv[1])
start = time.process_time()
try:
    size = len(first) + int(sys.argv[2]) * 10**6 // len(again) * len(again)
    dataset = prepare([("long.csv", Long(first, again, size))], sys.argv[3])
    outcome = dataset.rows + dataset.hold_out_rows
except InvalidDatasetError as error:
    outcome = error
peak = [line for line in open("/proc/self/status") if line.startswith("VmHWM")][0].split()[1]
print(int(peak) // 1024, round(time.process_time() - start, 2), outcome, sep="|")
"""


MANY = "b','.join(b'c%d' % n for n in range(11)) + b'\\n', b''.join("
MANY += "b','.join(b'%.6f' % (n * m % 997 / 7) for n in range(11)) + b'\\n' for m in range(9999))"


LONG = {
    "rows": (MANY, 150, r"\d{7}"),
    "short rows": (r"b'a,y\n', b'1,2\n3,4\n5,61\n'", 10, r"\d{7}"),
    "short quoted rows": (r"b'a,y\n', b'1,2\n3,4\n\"5\",61\n'", 5, r"\d{6}"),
    "a line without end": ("b'a,b\\n', b'1234567890'", 300, "line 2: a row of over"),
    "a header without end": ("b'', b'a,b,c,d'", 300, "line 1: a row of over"),
    "a cell without end": ("b'a,b\\n1,\"', b'1\\n'", 300, "line 2: a row of over"),
    "cells without end": ("b'a,b\\n\"', b'\",\"\\n'", 300, "line 2: a row of over"),
    "nothing but CRs": ("b'', b'\\r'", 100, "empty"),
}


@pytest.mark.parametrize("kind", LONG)
def test_memory_does_not_grow_with_the_file(tmp_path, figure, kind):
    parts, size, expected = LONG[kind]
    command = [sys.executable, "-c", READ_LARGE_FILE, f"({parts})", str(size * SOAK), tmp_path]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    peak, seconds, outcome = out.strip().split("|", 2)
    assert re.search(expected, outcome), outcome
    assert int(peak) < 150
    figure(f"CSV of {size * SOAK} MB, {kind}: {peak} MB of memory, {seconds} s: {outcome[:60]}")
