# needs: git
export HOME=$PWD GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z'; git init -q -b main r && cd r && git config user.name n && git config user.email e@x && echo 1 > f && git add f && git commit -q -m first && git log --format='%H %s' | cat && git status --short
