"""torchrun's elastic launcher, tethered to the process that wants the ranks: `python -m worker.engine.agent ...`."""

import sys

from torch.distributed.run import main

from worker.engine.tether import tether

if __name__ == "__main__":
    tether()
    main(sys.argv[1:])
