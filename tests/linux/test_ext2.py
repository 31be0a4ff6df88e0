"""ext2 on a loop device: the same commands on the host's kernel and inside, and what e2fsck says of the image after."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.run import loadstone, native

TOOLS = ("losetup", "mke2fs", "e2fsck", "dumpe2fs", "mount", "umount")

SCRIPT = r"""
t() { truncate -s 8M img
mke2fs -q -O ^dir_index -t $1 $2 img
mkdir -p m
L=$(losetup -f --show img)
mount -t $1 $L m && echo mounted
shift
grep " $PWD/m " /proc/self/mountinfo | sed 's/^.* - //; s/loop[0-9]*/N/'
stat -f -c '%t %b %f %a %c %d %s' m
ls -a m
cd m
echo hello > a
cat a
ln a b
ln -s a c
ln -s $(printf %0100d 7) long
readlink long | wc -c
mkdir d
mkdir d/e
mv d/e f
mv a d/
cat d/a
for i in $(seq 60); do echo $i > d/file-with-a-long-name-$i; done
ls d | wc -l
ls -ld . d f | sed 's/ [A-Z][a-z][a-z] .*:.. / /'
dd if=/dev/urandom of=big bs=10k count=90 2>/dev/null
cp big big2
cmp big big2 && echo same
truncate -s 300000 big2
truncate -s 500000 big2
cmp -n 300000 big big2
ls -ls big big2 | awk '{print $1,$2,$6}'
dd if=/dev/zero of=hole bs=1k seek=700 count=1 2>/dev/null
ls -ls hole | awk '{print $1,$6}'
mkfifo p
mknod n c 1 3
echo x > n
cat n
stat -c '%F %t:%T' p n
dd if=/dev/zero of=full bs=64k 2>&1 | grep -v copied
df --output=avail .
rm full d/file*
rmdir d 2>&1
mkdir g
rmdir g
rm -f d/a
rmdir d
chmod 600 b
chown 70000:3 b
touch -d 2001-02-03 b
stat -c '%a %u %g %Y %h' b
mv b c
exec 3< big; rm big; wc -c <&3; exec 3<&-
python3 -c "
import mmap
f=open('big2','r+b'); m=mmap.mmap(f.fileno(),0); m[5]=65; m.flush(); m.close()
print(open('big2','rb').read()[5])
import os; print(sorted(os.listdir('.')))"
cd ..
umount m && echo away
e2fsck -fn $L 2>&1 | grep -v ^e2fsck | sed 's#/dev/loop[0-9]*#dev#; s/([0-9.]*% non-contiguous)//'
dumpe2fs -h $L 2>/dev/null | grep 'Filesystem state'
mount -r $L m
cat m/c
touch m/x
mount -o remount,rw m
touch m/x
losetup -d $L
umount m
losetup -j img
rm img
}
t $KIND "$OPTIONS"
"""


def _missing(tmp_path: Path) -> str:
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    absent = [tool for tool in TOOLS if shutil.which(tool, path=path) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    image = tmp_path / "probe"
    image.write_bytes(bytes(1 << 20))
    subprocess.run(["/sbin/mke2fs", "-q", str(image)], check=True, capture_output=True)
    probe = subprocess.run(["unshare", "--mount", "mount", "-o", "loop", str(image), "/mnt"], capture_output=True)
    return "the host mounts no ext2 on a loop device" if probe.returncode else ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
@pytest.mark.parametrize(("kind", "options"), [("ext2", ""), ("ext2", "-b 4096"), ("ext3", "-I 128")])
def test_a_file_system_on_a_device_is_what_it_is_natively(kind: str, options: str, tmp_path: Path) -> None:
    reason = _missing(tmp_path)
    if reason:
        pytest.skip(reason)
    texts = []
    for side in ("native", "loadstone"):
        here = tmp_path / side
        here.mkdir()
        line = ["/bin/bash", "-c", f"exec 2>&1; KIND={kind}; OPTIONS='{options}'; {SCRIPT}"]
        if side == "native":
            done = native("/usr/bin/unshare", "--mount", *line, cwd=here)
        else:
            done = loadstone("run", "--", *line, cwd=here)
        texts.append(done.text.replace(str(here), "HERE").splitlines())
    assert texts[1] == texts[0]
    assert "away" in texts[0] and len(texts[0]) > 30
