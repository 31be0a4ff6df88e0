exec 3>&1; echo to three >&3; exec 3>&-; echo lost >&3
