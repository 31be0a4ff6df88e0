printf 'echo plain $0 $1\n' > s; chmod +x s; ./s one; env ./s two
