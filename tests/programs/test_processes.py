"""Several processes in one machine, as its user sees them: what they leave behind, what they may not do, seeds."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from loadstone.api import Machine
from loadstone.machine.physical import CACHE
from loadstone.vfs.streams import host_stream
from support.compilers import Compiler
from support.run import engine, loadstone, of_unicorn

PATH = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}

WORKLOADS = {
    "true": "for i in 1 2 3; do /bin/true; done",
    "pipes": "seq 1000 | sort -R | sort -n | tail -1 > /dev/null",
    "killed": "sleep 100 & kill -9 $!; wait",
    "left": "sleep 100 & :",
    "substitution": "read x < <(echo hello); [[ $x == hello ]]",
    "subshells": "( ( ( exit 0 ) ) )",
    "failing": "/nonexistent 2>/dev/null || :",
}


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_frame_is_free_or_page_cache_afterwards(name: str) -> None:
    with Machine(engine=engine(), memory=256 << 20, keep_faults=False) as machine:
        reserved = None
        for _ in range(2):
            process = machine.spawn("/bin/bash", ["bash", "--norc", "-c", WORKLOADS[name]], PATH)
            assert process.run().code == 0
            machine.finish()
            frames = machine.physical.usage()
            assert (frames["anonymous"], frames["page table"]) == (0, 0)
            assert reserved in (None, frames["reserved"])
            reserved = frames["reserved"]
        assert not machine.kernel.processes
        assert not machine.kernel.tasks
        references = [
            machine.physical.references(frame)
            for frame in range(machine.physical.frames)
            if machine.physical.owner(frame) == CACHE
        ]
        assert len(references) == frames["page cache"]
        assert set(references) <= {1}, "somebody still maps a page of the page cache"
        assert machine.kernel.page_cache.spaces == []


def test_forks_that_fail_leave_no_frames(compiled: Compiler) -> None:
    """Each of them is refused after the memory could have been copied: the machine has no descriptors for the child."""
    with Machine(engine=engine(), memory=256 << 20, keep_faults=False, max_files=60) as machine:
        process = machine.spawn(compiled(REFUSED_FORKS, "static"))
        assert process.run().code == 50
        frames = machine.physical.usage()
        assert (frames["anonymous"], frames["page table"]) == (0, 0)


REFUSED_FORKS = r"""
#include <errno.h>
#include <unistd.h>
int main(void) {
  int refused = 0;
  for (int i = 0; i < 40; i++) dup(1);
  for (int i = 0; i < 50; i++)
    if (fork() < 0) refused += errno == ENFILE;
  return refused;
}
"""


def test_what_a_program_leaves_running_still_prints() -> None:
    done = loadstone("run", "/bin/bash", "-c", "echo through the substitution > >(cat)")
    assert (done.text, done.status, done.errors) == ("through the substitution\n", 0, "")


def test_who_only_waits_is_ended_and_named() -> None:
    done = loadstone("run", "/bin/bash", "-c", "sleep 1000 & sleep 2000 & echo started; exit 3")
    assert (done.text, done.status) == ("started\n", 3)
    assert "ended with /bin/bash, which left them running: sleep (pid 1001), sleep (pid 1002)" in done.errors


def test_all_are_waited_for_on_request() -> None:
    done = loadstone("run", "--wait-all", "/bin/bash", "-c", "(sleep 0.2; echo late) & echo early")
    assert (sorted(done.text.split()), done.status, done.errors) == (["early", "late"], 0, "")


def test_a_fork_bomb_ends_with_a_message() -> None:
    done = loadstone("run", "--max-processes", "60", "/bin/bash", "-c", "f() { f | f & }; f; wait")
    assert done.status == 137
    assert "wanted more than 60 processes at a time (--max-processes): the machine was switched off" in done.errors


ZOMBIES = """
#include <unistd.h>
int main(void) { for (;;) if (fork() == 0) _exit(0); }
"""


def test_a_flood_of_zombies_ends_with_a_message(compiled: Compiler) -> None:
    done = loadstone("run", "--max-processes", "200", compiled(ZOMBIES, "static"))
    assert done.status == 137
    assert "wanted more than 200 processes at a time" in done.errors


MEMORY_BOMB = """
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void) {
  int status;
  if (fork() == 0) for (;;) memset(malloc(1 << 20), 1, 1 << 20);
  wait(&status);
  printf("killed by %d\\n", WTERMSIG(status));
}
"""


def test_a_memory_bomb_is_killed_and_its_parent_lives(compiled: Compiler) -> None:
    done = loadstone("run", "--memory", "32M", compiled(MEMORY_BOMB, "static"))
    assert (done.text, done.status) == ("killed by 9\n", 0)


SHORT_OF_MEMORY = """
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void) {
  int status, ends[2];
  char c;
  pipe(ends);
  pid_t big = fork();
  if (!big) {
    char *mine = malloc(20 << 20);
    memset(mine, 1, 20 << 20);
    write(ends[1], mine, 1);
    for (;;) pause();
  }
  read(ends[0], &c, 1);
  char *area = malloc(12 << 20);
  long bytes = 0;
  for (int i = 0, zero = open("/dev/zero", O_RDONLY); i < 12; i++) bytes += read(zero, area + (i << 20), 1 << 20);
  waitpid(big, &status, 0);
  printf("%ld %d\\n", bytes, WTERMSIG(status));
}
"""


def test_a_call_for_which_another_process_was_killed_goes_on(compiled: Compiler) -> None:
    done = loadstone("run", "--memory", "32M", compiled(SHORT_OF_MEMORY, "static"))
    assert (done.text, done.status) == (f"{12 << 20} 9\n", 0)


LEAK = """
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void) {
  for (int i = 0; i < 8; i++)
    if (fork() == 0) {
      int count = 0;
      struct rlimit all = {1 << 20, 1 << 20};
      setrlimit(RLIMIT_NOFILE, &all);
      while (open("/etc/passwd", O_RDONLY) >= 0) count++;
      _exit(errno == ENFILE && count > 10 ? 0 : 1);
    }
  int status, sum = 0;
  while (wait(&status) > 0) sum += status;
  printf("%d\\n", sum);
}
"""


def test_a_leak_of_descriptors_is_bounded(compiled: Compiler) -> None:
    done = loadstone("run", "--max-files", "1000", compiled(LEAK, "static"))
    assert (done.text, done.status) == ("0\n", 0), done.errors
    assert "more than 1,000 descriptors were wanted at a time (--max-files)" in done.errors


# Right whatever the order: a pipeline, a lock, a counter in shared memory, children that are waited for in any order.
RIGHT = """
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void) {
  int *counter = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), ends[2];
  pipe(ends);
  for (int i = 0; i < 4; i++)
    if (fork() == 0) {
      for (int n = 0; n < 50; n++) {
        __sync_fetch_and_add(counter, 1);
        for (volatile int spin = 0; spin < 2000; spin++);
        write(ends[1], "x", 1);
      }
      _exit(i);
    }
  close(ends[1]);
  char c;
  int bytes = 0, codes = 0, status;
  while (read(ends[0], &c, 1) == 1) bytes++;
  while (wait(&status) > 0) codes += WEXITSTATUS(status);
  printf("%d %d %d\\n", *counter, bytes, codes);
}
"""


def test_a_right_program_is_right_under_a_hundred_seeds(compiled: Compiler) -> None:
    program = compiled(RIGHT, "static")
    orders = set()
    for seed in range(100):
        with Machine(engine="unicorn", deterministic=True, schedule_seed=seed, memory=64 << 20) as machine:
            switches: list[tuple[int, int]] = []
            machine.events.subscribe(lambda e, seen=switches: seen.append((e.source, e.target)), ["switch"])
            process = machine.spawn(program, [program], PATH)
            reading, writing = os.pipe()
            files = process.inner.files
            files.dup2(files.install(host_stream(machine.kernel.vfs, writing)), 1)
            assert process.run().code == 0
            os.close(writing)
            assert os.read(reading, 100) == b"200 200 6\n"
            os.close(reading)
            orders.add(tuple(switches))
    assert len(orders) > 90, "the seeds hardly change the order"


def test_the_same_seed_gives_the_same_record(tmp_path: Path) -> None:
    records = []
    for number, seed in enumerate((5, 5, 6)):
        path = tmp_path / f"{number}.jsonl"
        done = loadstone(
            "run", "--deterministic", "--schedule-seed", str(seed), "--record", str(path), "/bin/bash", "--norc", "-c",
            "for i in 1 2 3; do echo $i | cat & done; wait",
        )  # fmt: skip
        assert sorted(done.text.split()) == ["1", "2", "3"]
        records.append(path.read_text().splitlines()[1:])
    assert records[0] == records[1] != records[2]
    events = [json.loads(line) for line in records[0]]
    assert len([e for e in events if e["event"] == "fork"]) == 6
    assert len({e["pid"] for e in events if e["event"] == "exit"}) == 7


@pytest.mark.parametrize("policy", ["fair", "priority"])
def test_every_policy_runs_a_pipeline(policy: str) -> None:
    done = loadstone("run", "--policy", policy, "/bin/bash", "-c", "seq 300 | sort -n | tail -1; nice -n 10 echo nice")
    assert (done.text, done.status) == ("300\nnice\n", 0)


def test_a_trace_names_the_process_once_there_are_several(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    loadstone("run", *of_unicorn(), "--trace", "syscall", "-o", str(path), "/bin/bash", "-c", "/bin/true; :")
    lines = path.read_text().splitlines()
    assert any(line.startswith("[pid 1001] execve(") for line in lines)
    assert "[pid 1001] +++ exited with 0 +++" in lines
    assert lines[-1] == "+++ exited with 0 +++"
