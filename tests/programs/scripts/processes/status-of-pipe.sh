false | true
echo $? ${PIPESTATUS[@]}
set -o pipefail
false | true
echo $?
