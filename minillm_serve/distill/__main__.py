"""``python -m minillm_serve.distill``."""

import sys

from minillm_serve.distill.command import main

sys.exit(main())
