"""Takes 400 locks on the file that it is given, gives them up one by one, and so on until its parent is gone."""

import fcntl
import os
import sys

parent = os.getppid()
file = open(sys.argv[1], "w+")
is_ready = False
while os.getppid() == parent:
    for byte in range(0, 800, 2):
        fcntl.lockf(file, fcntl.LOCK_EX, 1, byte)
    if not is_ready:
        print("ready", flush=True)
    is_ready = True
    for byte in range(0, 800, 2):
        fcntl.lockf(file, fcntl.LOCK_UN, 1, byte)
