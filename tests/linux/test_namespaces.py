"""Namespaces: the same shell commands natively and inside Loadstone, which must print the same.

Natively they need root, and are run in namespaces of their own, so that the host is not touched.
"""

from __future__ import annotations

import os
import shutil

import pytest

from support.c_programs import source_of
from support.compilers import Compiler
from support.run import assert_same, loadstone, native

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may make namespaces everywhere"),
    pytest.mark.skipif(shutil.which("nsenter") is None, reason="util-linux is not installed"),
]
FOR_ROOT = ("--uts", "--ipc", "--pid", "--fork", "--mount", "--net", "--cgroup", "--time")


@pytest.fixture(autouse=True, scope="module")
def _the_host_has_them() -> None:
    """Even root may make none where it is kept in a container."""
    for kinds in (FOR_ROOT, ("--user",)):
        done = native("unshare", *kinds, "/bin/true")
        if done.status:
            pytest.skip(f"the host makes no namespaces: {done.errors.strip()}")


def both(script: str, *namespaces: str, before: str = ":") -> str:
    """What the commands print on both sides after `before`, in namespaces made with these options of unshare(1)."""
    line = ("unshare", *(namespaces or ("--uts",)), "/bin/sh", "-c", f"{before}\n{script}")
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


USERS = """
id; cat /proc/self/uid_map /proc/self/setgroups
unshare -U sh -c 'id; cat /proc/self/uid_map; grep Cap /proc/self/status; hostname inside'
unshare -r sh -c 'id; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; grep Cap /proc/self/status'
unshare -r unshare -u sh -c 'hostname inside; hostname'
unshare -r hostname inside; hostname
unshare -r unshare -r sh -c 'cat /proc/self/uid_map; cat /proc/$PPID/uid_map; id -u'
setpriv --reuid 65534 --regid 65534 --clear-groups unshare -r sh -c '
  id; unshare -u hostname inside; stat -c "%u %g" / /proc/self /proc/1
  echo 0 0 1 > /proc/self/uid_map; setpriv --reuid 5 id; setpriv --clear-groups id
  grep -E "Uid|Gid" /proc/self/status; readlink /proc/1/ns/uts; kill -0 $PPID'
"""


def test_user_namespaces() -> None:
    both(USERS)


MAPS = """
cd $(mktemp -d); mkfifo fifo
unshare -U sh -c 'read line; id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map
  setpriv --reuid 3 --clear-groups id -u
  setpriv --reuid 10 id -u; stat -c %u /proc/self
  sh -c "exit 3"; echo $?; unshare -U cat /proc/self/uid_map' < fifo &
exec 3> fifo
while [ $(readlink /proc/$!/ns/user) = $(readlink /proc/self/ns/user) ]; do sleep 0.01; done
for line in '0 1000' '0 1000 0' 'x' '0 1000 10 1' '0 1000 4294967295' '-1 0 1' '0 0x10 1'; do
  echo "$line" > /proc/$!/uid_map
done
printf '0 1000 10\\n5 3000 1\\n' > /proc/$!/uid_map
printf '0 1000 10\\n20 1009 1\\n' > /proc/$!/uid_map
echo perhaps > /proc/$!/setgroups
printf '0 1000 10\\n' > /proc/$!/gid_map
printf '0 0 1\\n1 1000 9\\n' > /proc/$!/uid_map
printf '0 0 1\\n' > /proc/$!/uid_map
echo deny > /proc/$!/setgroups
cat /proc/$!/uid_map /proc/$!/gid_map /proc/$!/setgroups
echo > /proc/self/fd/3
wait
"""


def test_maps_of_users_are_written_by_the_kernels_rules() -> None:
    both(MAPS)


def test_what_namespaces_say_of_themselves(compiled: Compiler) -> None:
    program = compiled(source_of("namespace_files"), "static")
    assert_same(loadstone("run", "--", program), native(program))


# The shell says "Terminated" if nobody reaped the child before it came to wait: by chance.
PIDS = """
unshare -p -f sh -c 'echo $$ $PPID; sh -c "echo \\$\\$ \\$PPID"; sleep 9 & echo $!; kill $!
  wait $! 2>/dev/null; echo $?
  kill -9 1; kill -TERM 1; echo alive; setsid sh -c "echo \\$\\$"'
unshare -p -f sh -c 'sleep 100 & sleep 100 & echo started'; echo $?
unshare -p sh -c 'sh -c "exit 3"; echo $?; sh -c "exit 4"; echo $?' 2>&1
unshare -p -f sleep 100 & unshare=$!
child=; while [ -z "$child" ]; do read child rest < /proc/$unshare/task/$unshare/children; done
while ! grep -q sleep /proc/$child/comm; do sleep 0.01; done
grep NSpid /proc/$child/status | wc -w
nsenter -t $child -p sh -c 'echo $PPID; kill -0 1; echo $?; kill -STOP 1; kill -TERM 1; kill -0 1; echo $?'
kill -TERM $child; kill -0 $child && kill -9 $child
wait $unshare; echo $?
"""


def test_pid_namespaces() -> None:
    both(PIDS)


def test_numbers_in_pid_namespaces(compiled: Compiler) -> None:
    program = compiled(source_of("pid_namespaces"), "static")
    wanted = native("unshare", "--pid", "--fork", program)
    assert_same(loadstone("run", "--", shutil.which("unshare") or "", "--pid", "--fork", program), wanted)


MOUNTS = """
cd /tmp; mkdir a b; touch a/under
unshare -m sh -c 'mount -t tmpfs none a; touch a/f; ls a; grep -c $PWD/a /proc/self/mountinfo; cd a; pwd'
ls a; grep -c $PWD/a /proc/self/mountinfo
unshare -p -f --mount-proc sh -c 'readlink /proc/self; ls -d /proc/[0-9]*; ps ax -o pid=,ppid=,args=
  grep -E "^(NS|Pid|PPid|Tgid)" /proc/self/status; sh -c "exec cat /proc/\\$PPID/comm"; ls /proc/self/task; kill -9 1'
unshare -m sh -c 'mount -t tmpfs none a; mount --bind b a; exec sleep 60' & child=$!
while ! grep -q sleep /proc/$child/comm; do sleep 0.01; done
nsenter -m -t $child sh -c "grep -c $PWD/a /proc/self/mountinfo; pwd"
kill $child
unshare -r -m sh -c 'mount -t tmpfs none a; echo x > a/x; cat a/x; umount a; ls a
  mount -t devtmpfs none a; mount --bind / a; umount /proc; mount --rbind / a && ls -d a/usr' 2>&1 | grep -v dmesg
unshare -r -m -p -f --mount-proc sh -c 'id -u; readlink /proc/self; mount -t sysfs s a' 2>&1 | grep -v dmesg
unshare --root=/usr /bin/ls -d /bin; unshare -R / -w /usr pwd
setpriv --reuid 1 --clear-groups unshare -m true; setpriv --reuid 1 --clear-groups unshare -R / true
"""

PIVOT = """
cd /tmp; mkdir a
unshare -m sh -c '
mount -t tmpfs none a; cd a; mkdir old bin lib lib64 usr proc
for each in bin lib lib64 usr; do mount --rbind /$each $each; done
pivot_root . old; cd /; ls /; ls -d /old/usr
mount -t proc p proc; umount -l /old; ls /old
cut -d" " -f5 proc/self/mountinfo; cd ..; pwd; pivot_root . .; pivot_root /proc /proc; pivot_root /usr /bin' 2>&1
ls -d /usr
"""


SHARED = """
cd /tmp; mkfifo fifo ready; mkdir a b c b/low; mount --bind b b; mount --make-shared b; mkdir b/sub
mount --bind b c; mkdir c/both; mount -t tmpfs none c/both; touch b/both/there; ls c/both; umount b/both; ls c/both
unshare -m --propagation unchanged sh -c 'mount -t tmpfs none b/sub; touch b/sub/from-inside; umount c/low
  mount --make-slave c; mount -t tmpfs none c/low; touch c/low/alone; ls b/sub c/low; echo > ready; read x < fifo
  ls b/low c/low' > log 2>&1 &
read x < ready
ls b/sub c/sub b/low; mount -t tmpfs none b/low; touch b/low/outside; echo > fifo; wait; ls b/sub; cat log
unshare -m --propagation unchanged sh -c 'umount b/sub'; ls b/sub c/sub
unshare -m --propagation private sh -c 'mount -t tmpfs none b/sub; touch b/sub/private'; ls b/sub
mount --make-private b; mount -t tmpfs none b/sub; touch b/sub/only; ls c/sub
mount --move b/sub a; ls a; mount --bind --make-shared c c
"""


def test_events_of_shared_mounts() -> None:
    both(SHARED, "--mount", before="mount -t tmpfs none /tmp")


def test_mount_namespaces() -> None:
    both(MOUNTS, "--mount", before="mount -t tmpfs none /tmp")


def test_pivot_root() -> None:
    both(PIVOT, "--mount", before="mount -t tmpfs none /tmp")


def test_network_namespaces(compiled: Compiler) -> None:
    program = compiled(source_of("network_namespaces"), "static")
    wanted = native("unshare", "--net", program)
    assert_same(loadstone("run", "--", shutil.which("unshare") or "", "--net", program), wanted)


CLOCKS = """
cat /proc/self/timens_offsets
unshare -T --monotonic 1000000 --boottime 2000000 sh -c 'cat /proc/self/timens_offsets
  readlink /proc/self/ns/time /proc/self/ns/time_for_children | uniq | wc -l
  read up rest < /proc/uptime; [ ${up%.*} -gt 2000000 ] && echo ahead; echo monotonic 1 1 > /proc/self/timens_offsets'
"""


def test_time_namespaces(compiled: Compiler) -> None:
    both(CLOCKS)
    program = compiled(source_of("time_namespaces"), "static")
    assert_same(loadstone("run", "--", program), native(program))


SANDBOX = """
setpriv --reuid 65534 --regid 65534 --clear-groups unshare -r -m -p -f -n -i -u sh -c '
mount -t tmpfs -o mode=755 none /mnt; cd /mnt; mkdir proc usr tmp old; touch f; chmod 000 f; cat f
chown 0:0 f; chown 5 f
stat -c "%u %g %a" . f; mkdir -m 0 d; ls d; for each in bin lib lib64; do ln -s usr/$each $each; done
mount --rbind /usr usr; mount -t proc proc proc; pivot_root . old; umount -l old; rmdir old; cd /; ls
hostname sandbox; hostname; ps ax -o pid=,args= | cut -c 1-12 | head -1; id -u; touch /usr/x; kill -9 1
mount --bind /usr /tmp; mount -o remount,ro,bind /tmp; touch /tmp/x; cat /proc/self/uid_map
exec setpriv --bounding-set -all id -u'
"""


def test_a_sandbox_made_by_a_user_without_privilege() -> None:
    both(SANDBOX)
