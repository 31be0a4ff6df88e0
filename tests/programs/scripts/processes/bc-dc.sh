# needs: bc dc
echo '2^64' | bc; echo '2 3 + p' | dc
