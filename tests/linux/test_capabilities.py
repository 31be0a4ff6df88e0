"""Capabilities over changes of user, PR_SET_KEEPCAPS, capset and exec: the sets, and what they allow, as natively."""

from __future__ import annotations

import os
import shutil

import pytest

from support.compilers import Compiler
from support.run import same

SOURCE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
static struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
static struct __user_cap_data_struct data[2];
static void show(const char *what, int r) {
  int error = errno;
  syscall(SYS_capget, &header, data);
  /* whether there are any, and CAP_SETGID: the bounding set differs from host to host */
  unsigned effective = data[0].effective, permitted = data[0].permitted;
  printf("%s %s: eff %d %d per %d %d inh %x | %d %d | setgroups %d\n", what, r < 0 ? strerrorname_np(error) : "0",
         effective != 0, !!(effective & 64), permitted != 0, !!(permitted & 64), data[0].inheritable,
         getuid(), geteuid(), (int)syscall(SYS_setgroups, 0, 0));
}
static int set(unsigned effective, unsigned permitted, unsigned inheritable) {
  data[0] = (struct __user_cap_data_struct){effective, permitted, inheritable};
  data[1] = (struct __user_cap_data_struct){0, 0, 0};
  return syscall(SYS_capset, &header, data);
}
static void child(int way) {
  printf("== %d\n", way);
  show("start", 0);
  if (way & 1) show("keep", prctl(PR_SET_KEEPCAPS, 1));
  if (way & 2) show("give up", set(64 | 128, 64 | 128 | 1, 64));
  if (way & 4) show("seteuid", seteuid(1000));
  if (way & 4) show("and back", seteuid(0));
  show("setresuid", setresuid(1000, 1000, 1000));
  show("activate", set(64, 64, 0));
  show("too much", set(1 << 20, 1 << 20, 0));
  show("effective only", set(128, 64, 0));
  show("setuid back", setuid(0));
  show("setresuid back", setresuid(0, 0, 0));
  fflush(stdout);
  if (way & 8)
    execl("/bin/sh", "sh", "-c", "grep -E 'Cap(Inh|Prm|Eff)' /proc/self/status | sed 's/[1-9a-f][0-9a-f]*$/X/'", NULL);
  exit(0);
}
int main(void) {
  for (int way = 0; way < 16; way++) {
    fflush(stdout);
    if (fork() == 0) child(way);
    wait(0);
  }
}
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to give up")
def test_sets_over_changes_of_user(compiled: Compiler) -> None:
    assert len(same(compiled(SOURCE)).text.splitlines()) > 100


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv")
def test_setpriv_drops_everything() -> None:
    line = ("/usr/bin/env", "setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups", "id")
    assert "uid=1000" in same(*line).text


BOUND = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
static struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
static const char *said(int r) { return r < 0 ? strerrorname_np(errno) : r ? "1" : "0"; }
static int inherit(unsigned which) {
  struct __user_cap_data_struct data[2];
  syscall(SYS_capget, &header, data);
  data[0].inheritable = which;
  return syscall(SYS_capset, &header, data);
}
static void show(const char *when) {  /* the lowest byte: the rest differs from host to host */
  char line[80];
  FILE *status = fopen("/proc/self/status", "r");
  while (fgets(line, sizeof line, status))
    if (!strncmp(line, "Cap", 3)) printf("%s %.7s %.2s\n", when, line, line + strlen(line) - 3);
  fclose(status);
}
int main(int count, char **words) {
  if (count > 1) {
    show("executed");
    if (count > 2) return 0;
    if (setresuid(1000, 1000, 1000)) perror("setresuid");
    fflush(stdout);
    return execl("/proc/self/exe", words[0], "as", "user", NULL);
  }
  printf("read %s", said(prctl(PR_CAPBSET_READ, CAP_CHOWN)));
  printf(" %s", said(prctl(PR_CAPBSET_READ, CAP_SETGID)));
  printf(" %s\n", said(prctl(PR_CAPBSET_READ, 64)));
  printf("drop %s", said(prctl(PR_CAPBSET_DROP, CAP_CHOWN)));
  printf(" %s", said(prctl(PR_CAPBSET_DROP, CAP_CHOWN)));
  printf(" %s", said(prctl(PR_CAPBSET_DROP, 64)));
  printf(" %s\n", said(prctl(PR_CAPBSET_READ, CAP_CHOWN)));
  show("dropped");
  printf("inherit %s", said(inherit(1 << CAP_CHOWN)));
  printf(" %s\n", said(inherit(1 << CAP_FOWNER | 1 << CAP_SETUID)));
  printf("drop %s\n", said(prctl(PR_CAPBSET_DROP, CAP_FOWNER)));
  if (!vfork()) {
    if (seteuid(1000)) perror("seteuid");
    printf("as user %s", said(prctl(PR_CAPBSET_DROP, CAP_KILL)));
    printf(" %s\n", said(prctl(PR_CAPBSET_READ, CAP_KILL)));
    fflush(stdout);
    _exit(0);
  }
  show("before");
  fflush(stdout);
  execl(words[0], words[0], "again", NULL);
}
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may lower the bounding set")
def test_the_bounding_set(compiled: Compiler) -> None:
    assert len(same(compiled(BOUND)).text.splitlines()) == 25


# Gives up all capabilities, or those above the first byte, and executes a program with and without no_new_privs.
GIVEN_UP = r"""
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
kept, no_new = int(sys.argv[1]), int(sys.argv[2])
header = struct.pack("Ii", 0x20080522, 0)
if no_new:
    print(libc.prctl(38, 1, 0, 0, 0), flush=True)
print(libc.capset(header, struct.pack("6I", kept, kept, 0, 0, 0, 0)), flush=True)
os.execvp("sh", ["sh", "-c", "grep -E 'CapPrm|CapEff|NoNew' /proc/self/status | sed 's/: *.*\\(..\\)$/ \\1/'"])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to give up")
@pytest.mark.parametrize("kept", [0, 0x41])
@pytest.mark.parametrize("no_new", [0, 1])
def test_exec_under_no_new_privs_gives_none_back(kept: int, no_new: int) -> None:
    said = same("python3", "-c", GIVEN_UP, str(kept), str(no_new)).text
    assert (f"CapEff {kept:02x}" in said) == bool(no_new)
