"""Writing a shard, killed at moments that are drawn: it is there whole or not at all, and the next run writes the same bytes."""

import signal
import subprocess
import sys
from random import Random

import pytest

from herdbook.files import PART, remove_abandoned
from herdbook.weights.checkpoint import read_header
from herdbook.weights.record import read_record
from support.mutations import BUDGET, SEED

KILLS = BUDGET // 100 or 12
# Ends at the call of a function of a number, or prints how many there are.
WRITER = """
import os, signal, sys
from pathlib import Path
from herdbook.weights.checkpoint import Produced, write_shard

folder, left = Path(sys.argv[1]), int(sys.argv[2])
tensors = [
    Produced(name, "U8", (5, 1000), lambda byte=byte: (bytes([byte]) * 1000 for _ in range(5)), {"action": "fetch"})
    for byte, name in enumerate("abc")
]
calls = 0

def count(frame, event, argument):
    global calls
    calls += 1
    if calls == left:
        os.kill(os.getpid(), signal.SIGKILL)

sys.setprofile(count)
write_shard(folder / "s.safetensors", folder / "s.json", tensors, {"key": "k"})
sys.setprofile(None)
print(calls)
"""


def write(folder, left=0):
    return subprocess.run(
        [sys.executable, "-c", WRITER, str(folder), str(left)], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_no_half_shard_and_the_next_run_writes_it(tmp_path):
    done = write(tmp_path / "whole")
    assert done.returncode == 0, done.stderr
    expected = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    assert expected.keys() == {"s.safetensors", "s.json"}
    random = Random(f"{SEED} shard")
    endings = []
    for number in range(KILLS):
        folder = tmp_path / str(number)
        killed = write(folder, random.randrange(1, int(done.stdout)))
        # Calls differ by a few between runs (a module is compiled, an object collected): a moment near
        # the end may come after it.
        endings.append(killed.returncode)
        assert killed.returncode in {0, -signal.SIGKILL}, killed.stderr
        left = {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}
        parts = {name for name in left if name.endswith(PART)}
        assert {name: left[name] for name in left.keys() - parts}.items() <= expected.items()
        assert "s.json" not in left or "s.safetensors" in left  # the record is the last
        assert write(folder).returncode == 0
        remove_abandoned(folder)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == expected
        assert (
            read_record(folder / "s.json")["tensors"].keys() == read_header(folder / "s.safetensors").keys()
        )
    assert endings.count(-signal.SIGKILL) > KILLS // 2
