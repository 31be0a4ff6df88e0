printf 'echo one\n' | sed 's/.*/&/e'
