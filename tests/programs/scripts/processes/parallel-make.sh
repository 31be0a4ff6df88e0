# needs: make
make -s -j4 -f makefile; make -f makefile fail 2>&1 | sed 's/make\[[0-9]*\]/make/'; echo ${PIPESTATUS[0]}
