python3 -c 'import subprocess as s; print(s.run(["echo", "hi"], capture_output=True).stdout); print(s.run("exit 3", shell=True).returncode); print(s.check_output("sort", input=b"b\na\n"))'
