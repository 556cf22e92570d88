import sys

from ionbeam.cli import main

sys.exit(main())
