"""``python -I -S serving.py FOLDER``: a replica that comes up slowly, answers on a unix socket of its own, and ends at once when told.

The socket is named after the revision and the replica. A file beside it, ``….ready``, says that it listens.
"""

import os
import socket
import sys
import time
from pathlib import Path

time.sleep(0.2)
name = f"{os.environ['BOREAS_REVISION']}.{os.environ['BOREAS_REPLICA']}"
path = Path(sys.argv[1]) / name
path.unlink(missing_ok=True)
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(str(path))
    listener.listen(64)
    path.with_name(f"{name}.ready").touch()
    while True:
        caller, _ = listener.accept()
        with caller:
            caller.sendall(os.environ["BOREAS_VERSION"].encode())
