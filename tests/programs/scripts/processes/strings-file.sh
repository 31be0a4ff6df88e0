# needs: file
echo 'int x = 5;' | file - | cut -c1-20
