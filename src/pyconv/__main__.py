"""``python -m pyconv`` is the ``pyconv`` command."""

import sys

from pyconv.cli import main

sys.exit(main())
