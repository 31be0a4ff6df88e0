while read -r line; do echo "<$line>"; done <<END
alpha
beta $((1 + 1))
END
