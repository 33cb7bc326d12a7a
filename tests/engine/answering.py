"""``python -I -S answering.py PORT FILE``: answers GET with the status that FILE holds (200 without one); ``hang``: never."""

import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:  # the library's name
        file = Path(sys.argv[2])
        word = file.read_text().strip() if file.exists() else "200"
        if word == "hang":
            time.sleep(3600)
        body = f"said {word}".encode()
        self.send_response(int(word))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
