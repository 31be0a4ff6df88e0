# needs: make
printf 'all:\n\t+@$(MAKE) -s -f sub\n' > m; printf 'all: x y\nx y:\n\t@echo $@\n' > sub; make -s -j2 -f m | sort
