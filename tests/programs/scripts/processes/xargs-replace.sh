printf 'a\nb\n' | xargs -I{} sh -c 'echo {} {}'
