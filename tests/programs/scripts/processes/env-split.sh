printf '#!/usr/bin/env -S sh -e\necho split; false; echo never\n' > e; chmod +x e; ./e; echo $?
