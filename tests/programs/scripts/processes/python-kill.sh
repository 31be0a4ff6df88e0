python3 -c 'import subprocess, signal; p = subprocess.Popen(["sleep", "99"]); p.send_signal(signal.SIGINT); print(p.wait())'
