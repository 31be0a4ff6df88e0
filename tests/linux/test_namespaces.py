"""Namespaces: the same shell commands natively and inside Loadstone, which must print the same.

Natively they need root, and are run in namespaces of their own, so that the host is not touched.
"""

from __future__ import annotations

import os
import shutil

import pytest

from support.compilers import Compiler
from support.run import assert_same, loadstone, native

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may make namespaces everywhere"),
    pytest.mark.skipif(shutil.which("nsenter") is None, reason="util-linux is not installed"),
]


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


ASKING = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
static const char *err(int result) { return result < 0 ? strerrorname_np(errno) : "ok"; }
static void ask(const char *path) {
  int fd = open(path, O_RDONLY), other;
  unsigned uid = 7;
  struct stat here, there;
  printf("%s: type %#x", path, ioctl(fd, 0xb703));
  printf(", owner %s", err(ioctl(fd, 0xb704, &uid)));
  printf(" %u", uid);
  printf(", users %s", err(other = ioctl(fd, 0xb701)));
  if (other >= 0) {
    int own = open("/proc/self/ns/user", O_RDONLY);
    fstat(other, &there);
    fstat(own, &here);
    printf(" %d %#x", here.st_ino == there.st_ino, ioctl(other, 0xb703));
  }
  printf(", parent %s", err(ioctl(fd, 0xb702)));
  printf(", other %s", err(ioctl(fd, 0xb7ff)));
  printf(", write %s", err(write(fd, "x", 1)));
  printf(", read %s\n", err(read(fd, &uid, 1)));
}
int main(void) {
  const char *kinds[] = {"uts", "ipc", "user", "cgroup", "net", "mnt"};
  char path[64];
  for (int round = 0; round < 3; round++) {
    for (int at = 0; at < 6; at++) {
      sprintf(path, "/proc/self/ns/%s", kinds[at]);
      ask(path);
    }
    int before = open("/proc/self/ns/user", O_RDONLY), uts = open("/proc/self/ns/uts", O_RDONLY);
    printf("back into the same: %s\n", err(setns(before, 0)));
    printf("unshare: %s\n", err(unshare(CLONE_NEWUSER | (round ? CLONE_NEWUTS : 0))));
    printf("up: %s %s\n", err(setns(before, CLONE_NEWUSER)), err(setns(uts, CLONE_NEWUTS)));
    printf("%d %d\n", geteuid(), getegid());
  }
}
"""


def test_what_namespaces_say_of_themselves(compiled: Compiler) -> None:
    program = compiled(ASKING, "static")
    assert_same(loadstone("run", "--", program), native(program))


PIDS = """
unshare -p -f sh -c 'echo $$ $PPID; sh -c "echo \\$\\$ \\$PPID"; sleep 9 & echo $!; kill $!; wait $!; echo $?
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


NUMBERS = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <linux/sched.h>
#include <pthread.h>
#include <unistd.h>
static const char *err(long result) { return result < 0 ? strerrorname_np(errno) : "ok"; }
static void heard(int number, siginfo_t *info, void *context) {
  (void)context;
  printf("signal %d code %d from %d\n", number, info->si_code, info->si_pid);
}
static void *thread(void *unused) {
  (void)unused;
  printf("thread %d of %d: tgkill %s\n", gettid(), getpid(), err(tgkill(getpid(), gettid(), 0)));
  return 0;
}
static pid_t make(int flags, pid_t *wanted, int count) {
  struct clone_args args = {.flags = flags, .exit_signal = SIGCHLD};
  args.set_tid = (uintptr_t)wanted;
  args.set_tid_size = count;
  fflush(0);
  return syscall(SYS_clone3, &args, sizeof args);
}
static void inside(int level) {
  struct sigaction action = {.sa_sigaction = heard, .sa_flags = SA_SIGINFO};
  siginfo_t info = {0};
  int status, pair[2];
  pthread_t other;
  pid_t child, wanted[5] = {77, 88, 99, 111, 122};
  sigaction(SIGUSR1, &action, 0);
  printf("level %d: %d %d %d %d\n", level, getpid(), getppid(), getpgid(0), getsid(0));
  kill(getpid(), SIGUSR1);
  sigqueue(getpid(), SIGUSR1, (union sigval){0});
  pthread_create(&other, 0, thread, 0);
  pthread_join(other, 0);
  child = make(0, wanted, 1);
  if (!child) _exit(getpid());
  printf("wait %d %d", child, waitpid(child, &status, 0));
  printf(" %d\n", WEXITSTATUS(status));
  child = make(0, wanted, 5);
  printf("too many %s\n", err(child));
  child = make(0, (pid_t[]){1}, 1);
  printf("taken %s\n", err(child));
  child = make(0, (pid_t[]){-1}, 1);
  printf("negative %s\n", err(child));
  fflush(0);
  if (!(child = fork())) {
    setpgid(0, 0);
    pause();
  }
  printf("setpgid %s", err(setpgid(child, child)));
  printf(" %d %d\n", getpgid(child) == child, child);
  kill(-child, SIGTERM);
  waitid(P_PGID, child, &info, WEXITED);
  printf("waitid %d %d\n", info.si_pid, info.si_status);
  socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
  struct ucred who = {0};
  socklen_t size = sizeof who;
  getsockopt(pair[0], SOL_SOCKET, SO_PEERCRED, &who, &size);
  printf("peer %d; sched %s %s; sid %s; group %s\n", who.pid, err(sched_getscheduler(1)),
         err(sched_getscheduler(4000000)), err(getsid(4000000)), err(kill(-4000000, 0)));
  printf("all %s\n", err(kill(-1, 0)));
  fflush(0);
  if (!fork()) {
    if (!fork()) {
      while (getppid() != 1) usleep(1000);
      _exit(42);
    }
    _exit(0);
  }
  for (int at = 0; at < 2; at++) printf("orphans %d", waitpid(-1, &status, 0)), printf(" %d\n", WEXITSTATUS(status));
  if (level == 3) return;
  child = make(CLONE_NEWPID, level == 1 ? (pid_t[]){1, 99} : 0, level == 1 ? 2 : 0);
  if (!child) {
    inside(level + 1);
    if (!fork()) pause();
    exit(level);
  }
  printf("child %d\n", child);
  printf("waited %d", waitpid(child, &status, 0));
  printf(" %d\n", WEXITSTATUS(status));
}
int main(void) {
  setvbuf(stdout, 0, _IOFBF, 1 << 16);
  inside(1);
}
"""


def test_numbers_in_pid_namespaces(compiled: Compiler) -> None:
    program = compiled(NUMBERS, "static")
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
cd /tmp; mkfifo fifo; mkdir a b c b/low; mount --bind b b; mount --make-shared b; mkdir b/sub
mount --bind b c; mkdir c/both; mount -t tmpfs none c/both; touch b/both/there; ls c/both; umount b/both; ls c/both
unshare -m --propagation unchanged sh -c 'mount -t tmpfs none b/sub; touch b/sub/from-inside; umount c/low
  mount --make-slave c; mount -t tmpfs none c/low; touch c/low/alone; ls b/sub c/low; read x < fifo
  ls b/low c/low' > log 2>&1 &
while [ -z "$(ls b/sub)" ]; do sleep 0.01; done
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


NETWORK = r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
static const char *err(long r) { return r < 0 ? strerrorname_np(errno) : "ok"; }
static struct sockaddr_in at(const char *a, int p) {
  struct sockaddr_in s = {AF_INET, htons(p), {inet_addr(a)}};
  return s;
}
static void look(void) {
  struct ifreq r;
  struct ifconf c;
  char room[4096];
  int s = socket(AF_INET, SOCK_DGRAM, 0), t = socket(AF_INET, SOCK_STREAM, 0), u = socket(AF_INET, SOCK_DGRAM, 0);
  struct sockaddr_in lo = at("127.0.0.1", 7777), any = at("0.0.0.0", 7778), far = at("192.0.2.1", 9);
  memset(&r, 0, sizeof r); strcpy(r.ifr_name, "lo");
  printf("flags %s", err(ioctl(s, SIOCGIFFLAGS, &r))); printf(" %#x\n", r.ifr_flags & 0xffff);
  printf("index %s", err(ioctl(s, SIOCGIFINDEX, &r))); printf(" %d\n", r.ifr_ifindex);
  printf("name %s", err(ioctl(s, SIOCGIFNAME, &r))); printf(" %s\n", r.ifr_name);
  printf("addr %s", err(ioctl(s, SIOCGIFADDR, &r)));
  printf(" %s\n", inet_ntoa(((struct sockaddr_in *)&r.ifr_addr)->sin_addr));
  printf("mtu %s", err(ioctl(s, SIOCGIFMTU, &r))); printf(" %d\n", r.ifr_mtu);
  printf("hw %s", err(ioctl(s, SIOCGIFHWADDR, &r))); printf(" %d\n", r.ifr_hwaddr.sa_family);
  strcpy(r.ifr_name, "none0"); printf("none %s\n", err(ioctl(s, SIOCGIFFLAGS, &r)));
  c.ifc_len = sizeof room; c.ifc_buf = room;
  printf("conf %s", err(ioctl(s, SIOCGIFCONF, &c))); printf(" %d\n", c.ifc_len);
  printf("send lo %s\n", err(sendto(s, "x", 1, 0, (void *)&lo, sizeof lo)));
  printf("send any %s\n", err(sendto(s, "x", 1, 0, (void *)&any, sizeof any)));
  printf("send far %s\n", err(sendto(s, "x", 1, 0, (void *)&far, sizeof far)));
  printf("connect %s\n", err(connect(t, (void *)&lo, sizeof lo)));
  printf("connect udp %s\n", err(connect(u, (void *)&lo, sizeof lo)));
  close(t); t = socket(AF_INET, SOCK_STREAM, 0);
  printf("bind lo %s\n", err(bind(t, (void *)&lo, sizeof lo)));
  printf("listen %s\n", err(listen(t, 5)));
  close(u); u = socket(AF_INET, SOCK_STREAM, 0);
  printf("bind any %s\n", err(bind(u, (void *)&any, sizeof any)));
  printf("listen %s\n", err(listen(u, 5)));
}
int main(void) {
  struct sockaddr_un n = {AF_UNIX, "\0name"};
  int before = socket(AF_INET, SOCK_STREAM, 0), one = socket(AF_UNIX, SOCK_STREAM, 0);
  int two = socket(AF_UNIX, SOCK_STREAM, 0), three, back = open("/proc/self/ns/net", O_RDONLY);
  struct ifreq r = {.ifr_name = "lo"};
  struct sockaddr_in lo = at("127.0.0.1", 7777);
  printf("unshare %s\n", err(unshare(CLONE_NEWNET)));
  look();
  three = socket(AF_INET, SOCK_DGRAM, 0);
  ioctl(three, SIOCGIFFLAGS, &r); r.ifr_flags |= IFF_UP;
  printf("up %s\n", err(ioctl(three, SIOCSIFFLAGS, &r)));
  look();
  printf("before %s\n", err(bind(before, (void *)&lo, sizeof lo)));
  printf("bind %s", err(bind(one, (void *)&n, 8)));
  printf(" listen %s\n", err(listen(one, 1)));
  printf("again %s\n", err(bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&n, 8)));
  printf("connect %s\n", err(connect(two, (void *)&n, 8)));
  printf("inside %s\n", err(connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&n, 8)));
  printf("back %s\n", err(setns(back, CLONE_NEWNET)));
  printf("free %s\n", err(bind(socket(AF_INET, SOCK_STREAM, 0), (void *)&lo, sizeof lo)));
  FILE *f = fopen("/proc/sys/net/ipv4/conf/lo/tag", "r+");
  int v = 7; fscanf(f, "%d", &v); printf("tag %d\n", v);
}
"""


def test_network_namespaces(compiled: Compiler) -> None:
    program = compiled(NETWORK, "static")
    wanted = native("unshare", "--net", program)
    assert_same(loadstone("run", "--", shutil.which("unshare") or "", "--net", program), wanted)


CLOCKS = """
cat /proc/self/timens_offsets
unshare -T --monotonic 1000000 --boottime 2000000 sh -c 'cat /proc/self/timens_offsets
  readlink /proc/self/ns/time /proc/self/ns/time_for_children | uniq | wc -l
  read up rest < /proc/uptime; [ ${up%.*} -gt 2000000 ] && echo ahead; echo monotonic 1 1 > /proc/self/timens_offsets'
"""

OFFSETS = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
static const char *err(long result) { return result < 0 ? strerrorname_np(errno) : "ok"; }
static const int clocks[] = {CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_BOOTTIME, CLOCK_REALTIME};
static long long now(int clock) {
  struct timespec time;
  syscall(SYS_clock_gettime, clock, &time);
  return time.tv_sec;
}
static void set(const char *text) {
  int fd = open("/proc/self/timens_offsets", O_WRONLY);
  printf("%s: %s\n", text, err(write(fd, text, strlen(text))));
  close(fd);
}
int main(void) {
  long long before[4];
  struct timespec soon;
  struct itimerspec when = {0};
  struct sysinfo info;
  set("1 1 1");
  printf("unshare %s\n", err(unshare(CLONE_NEWTIME)));
  set("monotonic 1"), set("2 1 1"), set("1 1 1000000000"), set("1 9223372036 0"), set("1 -9223372036 0"), set("1 x 1");
  set("1 10 0\na"), set("1 10 0\n7 20 0\n1 30 0"), set("7 50000 6\n1 40000 4\n");
  for (int at = 0; at < 4; at++) before[at] = now(clocks[at]);
  for (int at = 0; at < 4; at++) printf("clock %d unchanged %d\n", clocks[at], now(clocks[at]) - before[at] < 100);
  fflush(0);
  if (!fork()) {
    for (int at = 0; at < 4; at++) printf("clock %d ahead %lld\n", clocks[at], (now(clocks[at]) - before[at]) / 1000);
    sysinfo(&info);
    printf("up %d\n", (int)(info.uptime - before[2]) / 1000);
    clock_gettime(CLOCK_MONOTONIC, &soon);
    soon.tv_nsec += 1000000, soon.tv_sec += soon.tv_nsec / 1000000000, soon.tv_nsec %= 1000000000;
    printf("sleep %s\n", err(-clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &soon, 0)));
    int timer = timerfd_create(CLOCK_MONOTONIC, 0);
    long long count = 0;
    when.it_value = soon;
    printf("timer %s", err(timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, 0)));
    printf(" %s", err(read(timer, &count, 8)));
    printf(" %lld\n", count);
    set("1 1 1");
    fflush(0);
    _exit(0);
  }
  wait(0);
  set("1 1 1");
}
"""


def test_time_namespaces(compiled: Compiler) -> None:
    both(CLOCKS)
    program = compiled(OFFSETS, "static")
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
