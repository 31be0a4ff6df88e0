"""Namespaces: the same shell commands natively and inside Loadstone, which must print the same.

Natively they need root, and are run in namespaces of their own, so that the host is not touched.
"""

from __future__ import annotations

import os
import shutil

import pytest

from support.run import assert_same, loadstone, native

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may make namespaces everywhere"),
    pytest.mark.skipif(shutil.which("nsenter") is None, reason="util-linux is not installed"),
]


def both(script: str, *namespaces: str) -> str:
    """What the commands print on both sides, in new namespaces made with these options of unshare(1)."""
    line = ("unshare", *(namespaces or ("--uts",)), "/bin/sh", "-c", script)
    wanted = native(*line)
    got = loadstone("run", "--", shutil.which("unshare") or "", *line[1:])
    assert_same(got, wanted)
    return got.text


def test_links_have_the_numbers_of_a_machine_that_has_just_started() -> None:
    done = loadstone("run", "--", "/bin/ls", "-1", "/proc/self/ns/")
    assert done.text.split() == [
        "cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "time_for_children", "user", "uts",
    ]  # fmt: skip
    # include/uapi/linux/nsfs.h
    done = loadstone("run", "--", "/bin/readlink", "/proc/self/ns/uts", "/proc/self/ns/user", "/proc/self/ns/mnt")
    assert done.text.split() == ["uts:[4026531838]", "user:[4026531837]", "mnt:[4026531832]"]


NAMES = """
hostname one; hostname; uname -n; cat /proc/sys/kernel/hostname
unshare -u sh -c 'hostname two; hostname; echo three > /proc/sys/kernel/hostname; uname -n'
hostname
echo some.where > /proc/sys/kernel/domainname; cat /proc/sys/kernel/domainname
hostname $(printf %065d 1); hostname $(printf %064d 1); hostname
stat -L -c '%d %A %s' /proc/self/ns/uts
[ $(readlink /proc/self/ns/uts) = $(unshare -u readlink /proc/self/ns/uts) ] || echo another
setpriv --reuid 65534 --clear-groups unshare -u true
setpriv --reuid 65534 --clear-groups hostname four
"""


def test_uts_namespaces() -> None:
    both(NAMES)


ENTERING = """
unshare -u sleep 60 & child=$!
while [ $(readlink /proc/$child/ns/uts) = $(readlink /proc/self/ns/uts) ]; do sleep 0.01; done
hostname outside
nsenter -u -t $child hostname inside
hostname; nsenter -u -t $child hostname
exec 5< /proc/$child/ns/uts
kill -9 $child
nsenter -u/proc/self/fd/5 hostname
readlink /proc/self/fd/5 | cut -c 1-5
nsenter -i/proc/self/fd/5 true
nsenter -u/dev/null true
"""


def test_entering_namespaces_of_others() -> None:
    both(ENTERING)


SEGMENTS = """
ipcmk -M 4096 > /dev/null; ipcs -m | grep -c 4096
unshare -i sh -c 'ipcs -m | grep -c 4096; ipcmk -M 8192 > /dev/null; ipcs -m | grep -c 8192'
ipcs -m | grep -c 8192
unshare -i sleep 60 & child=$!
while [ $(readlink /proc/$child/ns/ipc) = $(readlink /proc/self/ns/ipc) ]; do sleep 0.01; done
nsenter -i -t $child ipcmk -M 12288 > /dev/null
ipcs -m | grep -c 12288
nsenter -i -t $child ipcs -m | grep -c 12288
kill $child
"""


def test_ipc_namespaces() -> None:
    both(SEGMENTS, "--ipc")


def test_cgroup_namespaces() -> None:
    both("[ $(readlink /proc/self/ns/cgroup) = $(unshare -C readlink /proc/self/ns/cgroup) ] || echo another", "-C")
