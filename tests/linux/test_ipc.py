"""System V semaphores and message queues, and POSIX message queues: as natively, call by call and tool by tool."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from support.c_programs import source_of
from support.compilers import Compiler
from support.run import loadstone, native, same

LIBRARIES = ("-lrt", "-lpthread")


@pytest.mark.parametrize("name", ["sysv_sem", "sysv_msg", "posix_mq"])
@pytest.mark.parametrize("variant", ["pie", "static", "musl-static"])
def test_every_call_as_natively(name: str, variant: str, compiled: Compiler) -> None:
    musl = ("-Dstrerrorname_np=strerror",) if variant.startswith("musl") else ()
    done = same(compiled(source_of(name), variant, *LIBRARIES, *musl))
    assert len(done.text.splitlines()) > 80


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may have an IPC namespace without a user namespace")
def test_segments_that_go_with_who_made_them(compiled: Compiler) -> None:
    if native("unshare", "--ipc", "true").status:
        pytest.skip("an IPC namespace is not to be had here")
    done = same(compiled(source_of("forced_removal"), "pie"))
    assert len(done.text.splitlines()) > 20


def needs(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


# What differs by the run: keys at random, and the times.
TOOLS = """
exec 2>&1
ipcmk -S 3 -p 640; ipcmk -Q -p 600; ipcmk -M 10000
ipcs | grep -c '^0x'; ipcs -l; ipcs -s | grep ' 3 ' | wc -l
ipcrm --all
ipcs | grep -c '^0x'
ipcrm -s 77; ipcrm -Q 0x1234
head -1 /proc/sysvipc/shm /proc/sysvipc/sem /proc/sysvipc/msg
"""


def test_ipcs_ipcmk_and_ipcrm(tmp_path: Path) -> None:
    needs("ipcs", "ipcmk", "ipcrm")
    done = loadstone("run", "--", "/bin/sh", "-c", TOOLS, cwd=tmp_path)
    if os.geteuid() == 0 and shutil.which("unshare"):  # in a namespace of its own: it removes all there are
        wanted = native("unshare", "--ipc", "/bin/sh", "-c", TOOLS, cwd=tmp_path)
        if b"unshare failed" not in wanted.stderr:
            assert done.text.splitlines() == wanted.text.splitlines()
            return
    assert "Semaphore id: 0" in done.text and "max number of arrays = 32000" in done.text


LIMITS = """
cd /proc/sys/kernel
for name in auto_msgmni msg_next_id msgmax msgmnb msgmni sem sem_next_id shm_next_id shm_rmid_forced shmall shmmax \
  shmmni ../fs/mqueue/msg_default ../fs/mqueue/msg_max ../fs/mqueue/msgsize_default ../fs/mqueue/msgsize_max \
  ../fs/mqueue/queues_max
do stat -c %A $name; cat $name; done
"""


def test_limits_are_shown_as_natively() -> None:
    same("/bin/sh", "-c", LIMITS)


CHANGES = """
exec 2>&1
cd /proc/sys/kernel
echo 100 > msgmax; echo 10 20 > sem; cat sem msgmax; echo 1 2 3 99999 > sem; cat sem
echo 70000 > msg_next_id; ipcmk -Q | sed s/.*:.//; cat msg_next_id
echo 5 > auto_msgmni; echo x > msgmnb; echo -1 > shmmni
echo 1 > msgmni; ipcmk -Q; echo 100000 > ../fs/mqueue/msg_max; ipcrm --all
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change limits")
def test_limits_can_be_changed_as_natively() -> None:
    needs("unshare", "ipcmk", "ipcrm")
    wanted = native("unshare", "--ipc", "/bin/sh", "-c", CHANGES)
    if b"unshare failed" in wanted.stderr:
        pytest.skip("no namespaces here")
    done = loadstone("run", "--", "unshare", "--ipc", "/bin/sh", "-c", CHANGES)
    assert done.text.splitlines() == wanted.text.splitlines()


# Hexadecimal and octal numbers, and what is none.
NUMBERS = """
exec 2>&1
cd /proc/sys/kernel
for word in 0x10 0X1f 010 0 00 08 0x 0o7 0b1 +5 -0 - 1_0 9x 0x_1 '7 8' '  12 ' 99999999999999999999
do echo "$word" > msgmni; cat msgmni; done
for words in '0x10 3' '5x 2' '1,2' '1 010 -3'; do echo "$words" > sem; cat sem; done
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change limits")
def test_numbers_are_read_as_natively() -> None:
    needs("unshare")
    wanted = native("unshare", "--ipc", "/bin/sh", "-c", NUMBERS)
    if b"unshare failed" in wanted.stderr:
        pytest.skip("no namespaces here")
    done = loadstone("run", "--", "unshare", "--ipc", "/bin/sh", "-c", NUMBERS)
    assert done.text.splitlines() == wanted.text.splitlines()


FILE_SYSTEM = r"""
exec 2>&1
mkdir -p q; mount -t mqueue none q || exit 77
stat -fc '%t %T %s' q; stat -c '%A %s %h %u' q
grep -o 'mqueue.*' /proc/self/mounts
: > q/one; : > q/two; cat q/one
ls q; stat -c '%A %s %h' q q/one
mv q/one q/three; mkdir q/d; ln q/one q/l; ln -s a q/s; mkfifo q/f; echo x > q/one
chmod 640 q/one; chown 1:2 q/one; stat -c '%a %u %g' q/one
setpriv --reuid 65534 --clear-groups rm -f q/one
rm q/one; ls q; rm q/two; umount q
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_the_file_system_as_natively(tmp_path: Path) -> None:
    needs("unshare", "setpriv")
    outputs = []
    for side in ("native", "loadstone"):
        here = tmp_path / side
        here.mkdir()
        if side == "native":
            done = native("unshare", "--mount", "--ipc", "/bin/sh", "-c", FILE_SYSTEM, cwd=here)
            if done.status == 77 or b"unshare failed" in done.stderr:
                pytest.skip("nothing can be mounted here")
        else:
            done = loadstone("run", "--", "/bin/sh", "-c", FILE_SYSTEM, cwd=here)
        outputs.append(done.text.splitlines())
    assert outputs[1] == outputs[0]


PERL = r"""
use IPC::SysV qw(IPC_PRIVATE IPC_CREAT IPC_NOWAIT IPC_RMID S_IRUSR S_IWUSR); use IPC::Msg; use IPC::Semaphore;
my $q = IPC::Msg->new(IPC_PRIVATE, S_IRUSR | S_IWUSR); my $s = IPC::Semaphore->new(IPC_PRIVATE, 2, S_IRUSR | S_IWUSR);
$s->setall(0, 5); $| = 1;
if (!fork) { $q->snd($_, "message $_") for 1 .. 3; $s->op(0, 1, 0); exit }
$s->op(0, -1, 0); wait;
for my $kind (-3, 3, 0) { my $got; print "kind ", $q->rcv($got, 100, $kind, IPC_NOWAIT), ": $got\n" }
print join(" ", $s->getall), " ", $s->stat->nsems, " ", $q->stat->qnum, "\n"; $q->remove; $s->remove;
"""


def test_perl() -> None:
    needs("perl")
    if native("perl", "-MIPC::SysV", "-e", "1").status:
        pytest.skip("perl has no IPC::SysV")
    assert "kind 1: message 1" in same("perl", "-e", PERL).text


def test_fakeroot(tmp_path: Path) -> None:
    needs("fakeroot-sysv")
    script = "touch f; chown 12:34 f; stat -c '%u %g' f; id -u; mknod n c 1 3; stat -c '%F %t %T' n; rm f n"
    same("fakeroot-sysv", "/bin/sh", "-c", script, cwd=tmp_path)


POOL = """
import multiprocessing as mp
from multiprocessing.shared_memory import SharedMemory

def add(queue, lock, total, number):
    with lock:
        total.value += number
    queue.put(number)

with mp.Pool(3) as pool:
    print(pool.map(abs, range(-5, 5)))
queue, lock, total = mp.Queue(), mp.Lock(), mp.Value("i", 0)
workers = [mp.Process(target=add, args=(queue, lock, total, number)) for number in range(4)]
for one in workers: one.start()
print(sorted(queue.get() for _ in workers))
for one in workers: one.join()
one = SharedMemory(create=True, size=100)
one.buf[:5] = b"hello"
two = SharedMemory(name=one.name)
print(total.value, bytes(two.buf[:5]))
two.close(); one.close(); one.unlink()
"""


def test_python_multiprocessing() -> None:
    assert "6 b'hello'" in same("/usr/bin/python3", "-c", POOL).text


DEADLOCK = r"""
#include <mqueue.h>
#include <fcntl.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <unistd.h>

int main(void) {
  char b[9000];
  int set = semget(IPC_PRIVATE, 2, 0600), queue = msgget(IPC_PRIVATE, 0600);
  mqd_t q = mq_open("/q", O_RDWR | O_CREAT, 0600, 0);
  struct sembuf two = {1, -2, 0};
  if (!fork()) semop(set, &two, 1);
  if (!fork()) msgrcv(queue, b, 100, 0, 0);
  mq_receive(q, b, 8192, 0);
}
"""


def test_who_waits_for_what_when_all_wait(compiled: Compiler) -> None:
    done = loadstone("run", "--", compiled(DEADLOCK, "pie", *LIBRARIES))
    assert done.status == 125
    for what in ("semaphore 1 of set 0 to reach 2", "a message in queue 0", "a message in the queue /q"):
        assert f"for {what}" in done.errors


def test_a_deterministic_machine_shows_the_same_objects_again() -> None:
    needs("ipcmk")
    script = "ipcmk -Q; ipcmk -S 2; ipcmk -M 5; cat /proc/sysvipc/*"
    first, second = (loadstone("run", "--deterministic", "--", "/bin/sh", "-c", script).stdout for _ in range(2))
    assert first == second
    assert len(re.findall(rb"2082758\d{3}", first)) == 3  # when they were made, in 2036


GREEDY = r"""
#include <stdio.h>
#include <sys/msg.h>
#include <sys/sem.h>

int main(void) {
  static struct { long kind; char text[8192]; } m = {1};
  int sets = 0, messages = 0;
  while (semget(IPC_PRIVATE, 32000, 0600) >= 0) sets++;
  for (int id; (id = msgget(IPC_PRIVATE, 0600)) >= 0;)
    while (!msgsnd(id, &m, 8192, IPC_NOWAIT) && ++messages < 100000);
  printf("%d %d\n", sets > 2 && sets < 33, messages < 8192);
}
"""


def test_semaphores_and_messages_take_no_more_than_the_machine_has(compiled: Compiler) -> None:
    done = loadstone("run", "--memory", "64M", "--", compiled(GREEDY))
    assert done.text == "1 1\n", done.errors
