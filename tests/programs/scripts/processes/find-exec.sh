find . -type f -name 'n*' -exec wc -l {} +; find . -name words -exec head -1 {} \;
