for i in $(seq 200); do /bin/true; done; ls | sort | head -3 | wc -l
