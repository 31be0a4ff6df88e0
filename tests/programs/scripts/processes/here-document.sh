cat <<X | tr a-z A-Z
here $((1 + 1))
X
cat <<< string
