nothing-by-this-name-at-all
