"""One thread for the boosters: several spin while they wait for each other, which costs more than small models do."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when the libraries are loaded
