"""``python -m anyport`` is the command ``anyport``."""

import sys

from anyport.cli import main

if __name__ == "__main__":
    sys.exit(main())
