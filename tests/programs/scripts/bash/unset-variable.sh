set -u; echo $undefined_variable
