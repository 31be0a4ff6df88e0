"""Loop devices: what losetup, mkfs, dd and blkid do with them, natively and inside."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from support.run import loadstone, native

TOOLS = ("losetup", "mkfs.ext4", "e2fsck", "dumpe2fs", "blkid", "blockdev", "lsblk", "mke2fs")

SCRIPT = r"""
truncate -s 4M img
L=$(losetup -f --show img)
losetup -j img
mkfs.ext4 -q $L && echo made
blkid -o value -s TYPE $L; blkid -p -o value -s TYPE $L
blockdev --getsize64 --getss --getsz --getro --getpbsz --getbsz $L
dumpe2fs -h $L | grep 'Block count\|features\|Inode count'
e2fsck -fn $L
cmp $L img && echo the same bytes
dd if=/dev/zero of=$L bs=64k
losetup -d $L; losetup -j img; dd if=$L bs=1k count=1 2> err | wc -c
losetup -r -o 1024 --sizelimit 2048 $L img; dd if=$L bs=512 2> err | wc -c
echo x > $L
losetup -l -n -O OFFSET,SIZELIMIT,RO,AUTOCLEAR $L
cat /sys/block/${L#/dev/}/size /sys/block/${L#/dev/}/ro; lsblk -n -o TYPE,SIZE,RO $L
readlink /sys/class/block/${L#/dev/} /sys/dev/block/7:${L#/dev/loop}
exec 3< $L; losetup -d $L; losetup -l -n -O AUTOCLEAR $L; exec 3<&-; losetup -j img
losetup $L nothing; losetup $L /; losetup -d $L
losetup -f --show img > name; losetup -c $(cat name); truncate -s 1M img; losetup -c $(cat name)
blockdev --getsize64 $(cat name); losetup -d $(cat name)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root sets up loop devices")
def test_losetup_and_mkfs_do_what_they_do_natively(tmp_path: Path) -> None:
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    missing = [tool for tool in TOOLS if shutil.which(tool, path=path) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    (tmp_path / "probe").write_bytes(bytes(4096))
    probe = f"l=$(losetup -f --show {tmp_path}/probe); losetup -c $l; set -- $?; losetup -d $l; exit $1"
    if native("/bin/sh", "-c", probe).status:
        pytest.skip("the host sets up no loop devices to compare with")
    texts = []
    for side in ("native", "loadstone"):
        here = tmp_path / side
        here.mkdir()
        line = ["/bin/bash", "-c", f"exec 2>&1; {SCRIPT}"]
        done = native(*line, cwd=here) if side == "native" else loadstone("run", "--", *line, cwd=here)
        text = done.text.replace(str(here), "HERE")
        text = re.sub(r"loop\d+", "loopN", re.sub(r"7:\d+", "7:N", text))
        texts.append(re.sub(r"\[\d+\]:\d+", "[device]:inode", re.sub(r"copied,.*", "copied", text)))
    assert texts[1] == texts[0]
    assert "the same bytes" in texts[0] and len(texts[0].splitlines()) > 40
