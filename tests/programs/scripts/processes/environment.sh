A=1 B='two words' env | grep -E '^[AB]=' | sort; env -i C=3 /usr/bin/env
