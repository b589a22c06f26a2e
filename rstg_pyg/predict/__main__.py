"""python -m rstg_pyg.predict VIDEO --checkpoint FILE"""

import sys

from rstg_pyg.predict.command import main

if __name__ == "__main__":
    sys.exit(main())
