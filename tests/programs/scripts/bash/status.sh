f() { return 7; }; f; echo $?; false; echo $?; exit 42
