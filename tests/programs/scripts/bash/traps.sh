trap 'echo leaving $?' EXIT; trap 'echo usr1' USR1; kill -USR1 $$; echo after; exit 3
