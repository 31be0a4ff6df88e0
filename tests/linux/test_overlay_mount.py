"""mount -t overlay: the same commands on the host's kernel and inside, and what is then in the layers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support.run import loadstone, native

SCRIPT = r"""
mount -t tmpfs none .
cd $PWD
mkdir l1 l2 u w m
echo one > l1/a
echo two > l2/a
echo low > l2/b
mkdir -p l1/d/x l2/d/y l2/e
echo f > l2/d/f
echo g > l2/e/g
ln -s a l2/s
chmod 640 l2/b
touch -d 2002-03-04 l2/b
o() { mount -t overlay o m -o $1 2>&1 |
  sed 's/^mount: [^:]*: //; s/on o, .*//' | grep -v dmesg; }
o lowerdir=l2
o upperdir=u
o lowerdir=l1,upperdir=u
o lowerdir=l1,upperdir=u,workdir=u/q
o lowerdir=nothing:l1
o lowerdir=l1/a,upperdir=u,workdir=w
o lowerdir=l1,upperdir=w,workdir=w
o lowerdir=l1,bogus=1
o lowerdir=l1:l2,upperdir=u,workdir=w
grep ' - overlay o ' /proc/self/mountinfo | sed 's/.* - //; s/,uuid.*//'; stat -f -c '%t %l' m; ls -A w
cd m
ls -R
cat a b
readlink s
exec 3< b
echo more >> b
cat b ../u/b ../l2/b
cat <&3
stat -c '%a %s' b ../u/b
ls ../u
cat ../u/a
rm a
cat a;  stat -c '%F %t %T' ../u/a
ls
echo new > a
cat a ../u/a
rm a
mkdir a
ls -A a
rmdir a
ls -A ../u
mv d q
rm -r d
ls
ls -A ../u
mkdir d
ls -A d
touch d/n
ls -A d ../u/d
getfattr -n trusted.overlay.opaque ../u/d 2>/dev/null | grep -v '^#'
mv e e2
mkdir k
echo k > k/k
mv k k2
cat k2/k
ls
mv k2/k b
cat b
ln b b2
stat -c %h b b2
chmod 600 s 2>&1
chown 5 e/g
stat -c '%u' e/g ../u/e/g ../l2/e/g
truncate -s 1 e/g; cat e/g; echo; : > e/g; wc -c < e/g; rmdir e; rm e/g; rmdir e
ls; ls ../u ../l2; mkfifo p; (echo through > p &) ; cat p; mknod n c 1 3; echo y > n; cat n
python3 -c "
import mmap
f=open('b','r+b'); m=mmap.mmap(f.fileno(),0); m[0]=65; m.flush(); print(open('b').read(), open('../u/b').read())"
cp /bin/true ./true
./true && echo ran
cd ..
umount m
exec 3<&-
umount m
ls -A m
o lowerdir=u:l1:l2
ls -R m
touch m/a
cat m/b
umount m
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_an_overlay_has_the_names_and_layers_that_it_has_natively(tmp_path: Path) -> None:
    probe = "mount -t tmpfs n /mnt && cd /mnt && mkdir l u w && mount -t overlay o -o lowerdir=l:u w"
    if subprocess.run(["unshare", "--mount", "sh", "-c", probe], capture_output=True).returncode:
        pytest.skip("the host mounts no overlay")
    texts = []
    for side in ("native", "loadstone"):
        here = tmp_path / side
        here.mkdir()
        line = ["/bin/bash", "-c", f"exec 2>&1; {SCRIPT}"]
        if side == "native":
            done = native("/usr/bin/unshare", "--mount", *line, cwd=here)
        else:
            done = loadstone("run", "--", *line, cwd=here)
        texts.append(done.text.replace(str(here), "HERE").splitlines())
    assert texts[1] == texts[0]
    assert "ran" in texts[0] and len(texts[0]) > 100
