"""`python -m mlp_cli` is `mlp`."""

import sys

from mlp_cli.cli.main import main

sys.exit(main())
