/bin/echo one two
echo $_
