echo hello; echo -n no newline; printf '%s|%05d|%x\n' a 42 255
