"""ext2 on a loop device: the same commands on the host's kernel and inside, and what e2fsck says of the image after."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from random import Random

import pytest

from loadstone.errors import LinuxError
from loadstone.vfs.assemble import assemble
from loadstone.vfs.ext2.mounting import mount_ext2
from loadstone.vfs.flags import O_RDWR
from loadstone.vfs.inode import Inode
from loadstone.vfs.regular import RegularFile
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


def _visit(directory: Inode, chance: Random, depth: int = 0) -> None:
    """Read, write and remove what is found, as far as it can be had."""
    for name, _, _ in directory.entries()[:40]:
        try:
            found = directory.lookup(name)
            if found.is_directory and depth < 4:
                _visit(found, chance, depth + 1)
            elif found.is_symlink:
                found.readlink()
            elif isinstance(found, RegularFile):
                found.read_into([memoryview(bytearray(5000))], chance.choice((0, 3, 12_000, 80_000)))
                found.write_from([memoryview(bytes(3000))], chance.choice((0, 100, 50_000)))
                found.truncate(chance.choice((0, 10, 200_000)))
                directory.unlink(name, found)
        except LinuxError:
            continue


def test_a_damaged_image_gives_errors_and_nothing_worse(tmp_path: Path) -> None:
    mke2fs = shutil.which("mke2fs", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if mke2fs is None:
        pytest.skip("not installed: mke2fs")
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    for number in range(6):
        (tree / "sub" / f"file{number}").write_bytes(bytes([number]) * 9000)
    (tree / "long").symlink_to("x" * 90)
    image = tmp_path / "image"
    image.write_bytes(bytes(600 << 10))
    subprocess.run([mke2fs, "-q", "-d", str(tree), str(image)], check=True, capture_output=True)
    whole = image.read_bytes()
    used = [at for at, byte in enumerate(whole) if byte]
    mounted = 0
    for seed in range(150):
        chance = Random(seed)
        data = bytearray(whole)
        for _ in range(chance.choice((1, 2, 5, 30))):
            at = chance.choice((chance.choice(used), 1024 + chance.randrange(256), 2048 + chance.randrange(32)))
            data[at] = chance.choice((0, 255, chance.randrange(256), data[at] ^ 1 << chance.randrange(8)))
        vfs = assemble(None)
        file = vfs.anonymous("image", O_RDWR)
        file.write_from([memoryview(data)])
        disk = vfs.loops.disks[0]
        disk.attach(file, 0)
        try:
            superblock = mount_ext2("ext2", disk, vfs, False)
            mounted += 1
            _visit(superblock.root.inode, chance)
            assert superblock.space is not None and superblock.release is not None
            superblock.space()
            superblock.release()
        except LinuxError:
            continue
    assert 50 < mounted < 150
