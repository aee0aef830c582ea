"""`python -m cluster` is `caliber`."""

import sys

from cluster.cli import main

sys.exit(main())
