python3 -c 'from subprocess import *; a = Popen(["seq", "9"], stdout=PIPE); b = Popen(["tac"], stdin=a.stdout, stdout=PIPE); a.stdout.close(); print(b.communicate()[0])'
