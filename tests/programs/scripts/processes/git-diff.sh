# needs: git
export HOME=$PWD
git diff --no-index --stat numbers words | cat
git diff --no-index words numbers | head -4
