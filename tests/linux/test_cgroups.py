"""Control groups: files, moving, freezing and killing as the kernel has them; limits on processes and memory."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from support.run import loadstone, native

# Everything that no controller is needed for, which another hierarchy of the host may have.
SCRIPT = r"""
until_it_says() { until grep -qx "$1" "$2"; do sleep 0.01; done; }
until_there_are() { until [ $(wc -l < "$2") = $1 ]; do sleep 0.01; done; }
mkdir cg; mount -t cgroup2 c cg; cd cg; mkdir $G; cd $G
ls | grep -v 'pressure\|cpu\|local\|hugetlb\|perf'
cat cgroup.type cgroup.events cgroup.freeze cgroup.max.depth cgroup.procs cgroup.controllers
for w in "7 cgroup.freeze" "x cgroup.freeze" "1 cgroup.events" "0 cgroup.kill" "x cgroup.procs" \
  "999999 cgroup.procs" "-1 cgroup.max.depth" "threaded0 cgroup.type" "+nothing cgroup.subtree_control" \
  "memory cgroup.subtree_control"; do
  set -- $w; (echo $1 > $2) 2>&1 | sed 's/.*: //'; done
sleep 100 & P=$!
echo $P > cgroup.procs
[ "$(cat cgroup.procs)" = $P ] && echo is there
grep ^0 /proc/$P/cgroup
cat cgroup.events
mkdir sub
rmdir ../$G
echo $P > sub/cgroup.procs
cat cgroup.events sub/cgroup.events
wc -l < cgroup.procs
rmdir sub
echo 1 > cgroup.freeze
until_it_says 'frozen 1' cgroup.events
cat cgroup.events sub/cgroup.events
echo 0 > cgroup.freeze
until_it_says 'frozen 0' sub/cgroup.events
cat sub/cgroup.events;
echo 1 > cgroup.freeze
(echo 0 > sub/cgroup.procs
echo thawed) & Q=$!
until_there_are 2 sub/cgroup.procs
wc -l < sub/cgroup.procs
until_it_says 'frozen 1' sub/cgroup.events
kill -STOP $Q
kill -CONT $Q
sleep 0.1
echo 0 > cgroup.freeze
wait $Q
echo 1 > cgroup.freeze; kill -9 $P; wait $P; echo $?
until_it_says 'populated 0' sub/cgroup.events
cat sub/cgroup.events; echo 0 > cgroup.freeze
sh -c 'echo 0 > sub/cgroup.procs; sleep 500 & sleep 501 & wait' & P=$!
until_there_are 3 sub/cgroup.procs
wc -l < sub/cgroup.procs
echo 1 > cgroup.kill
wait $P
echo $?
until_it_says 'populated 0' cgroup.events
cat cgroup.events
grep ^0 /proc/self/cgroup
touch x
rm cgroup.procs
mv sub sub2
ln -s a b
mkdir sub
rmdir cgroup.procs
stat -c '%A %h %F %a' . cgroup.procs cgroup.kill
stat -f -c %t .
echo 1 > cgroup.max.descendants
mkdir two
echo 0 > sub/cgroup.max.depth
mkdir sub/x
cd ..
rmdir $G
rmdir $G/sub
rmdir $G
cd ..
umount cg
rmdir cg
"""

LIMITS = r"""
mkdir cg; mount -t cgroup2 c cg; cd cg
echo "+memory +pids" > cgroup.subtree_control; cat cgroup.subtree_control
mkdir one; cat one/cgroup.controllers one/pids.max one/memory.max
echo 3 > one/pids.max; echo 20M > one/memory.max; cat one/memory.max
sh -c 'echo 0 > one/cgroup.procs; sleep 100 & sleep 100 & (sleep 100) & wait'; cat one/pids.events
echo max > one/pids.max; kill $(cat one/cgroup.procs)
python3 -c "
import os
open('one/cgroup.procs', 'w').write('0')
x = bytearray(os.urandom(8 << 20))
print(8 << 20 <= int(open('one/memory.current').read()) < 20 << 20)
if os.fork() == 0: print(int(open('one/memory.current').read()) < 20 << 20, flush=True); os._exit(0)
os.wait()
x += bytes(40 << 20)
"; echo $?; cat one/memory.events; grep -c . one/cpu.stat
echo x | (echo 0 > one/cgroup.procs; cat > /dev/null); rmdir one
"""


def mended(text: str, here: Path) -> str:
    """Without what differs by nature: numbers of processes and the directory."""
    text = text.replace(str(here), "HERE")
    return re.sub(r"line \d+: +\d+ Killed.*", "Killed", re.sub(r"(?m)^.*/bash: line", "line", text))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_groups_are_moved_frozen_and_killed_as_natively(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "--mount", "mount", "-t", "cgroup2", "c", "/mnt"], capture_output=True).returncode:
        pytest.skip("the host has no cgroup2 to compare with")
    texts = []
    for side in ("native", "loadstone"):
        here = tmp_path / side
        here.mkdir()
        line = ["/bin/bash", "-c", f"exec 2>&1; G=test{os.getpid()}; {SCRIPT}"]
        run = ["/usr/bin/unshare", "--mount", *line]
        done = native(*run, cwd=here) if side == "native" else loadstone("run", "--", *line, cwd=here)
        texts.append(mended(done.text, here))
    assert texts[1] == texts[0]
    assert "thawed" in texts[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_limits_hold(tmp_path: Path) -> None:
    done = loadstone("run", "--", "/bin/bash", "-c", f"exec 2>&1; {LIMITS}", cwd=tmp_path)
    lines = done.text.splitlines()
    assert lines[:5] == ["memory pids", "memory pids", "max", "max", "20971520"]
    assert any("fork" in line for line in lines) and "True" in lines and "False" not in lines
    assert "137" in lines and "oom_kill 1" in lines and "4" in lines
    assert int(next(line for line in lines if line.startswith("max ")).split()[1]) > 0
