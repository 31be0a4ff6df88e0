x=1
(x=2
cd /
echo $x $PWD)
echo $x
