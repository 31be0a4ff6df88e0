printf '#!/bin/sh\necho "$0 $@"\n' > one; chmod +x one; printf '#!./one -x\n' > two; chmod +x two; ./two a b
