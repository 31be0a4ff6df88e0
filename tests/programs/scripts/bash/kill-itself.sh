echo dying; kill -TERM $$; echo not reached
