trap 'echo bye' EXIT; trap 'echo usr' USR1; kill -USR1 $$; sh -c 'exit 3'; echo $?
