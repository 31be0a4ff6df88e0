"""What the tests share: running a program here and natively, compiling one, looking at a tree of files."""
