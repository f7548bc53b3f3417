"""``python -m vmcmc_dist`` is ``vmcmc``."""

import sys

from vmcmc_dist.cli import main

if __name__ == "__main__":
    sys.exit(main())
