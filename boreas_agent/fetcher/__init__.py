"""Downloads artifacts, in a process of its own: bytes that come by the gigabyte must not take turns with requests for one interpreter.

``python -I -m boreas_agent.fetcher REQUEST``, with a socket as standard input. ``REQUEST`` is a JSON object: ``cache``, the folder of the
cache, and ``limits`` (``artifacts.limits.Limits``). Both sides send JSON objects, a line each:

- ``{"id", "key", "artifact"}``: download it into the cache, by way of the partial ``key``
- ``{"cancel": id}``: give that up, and keep nothing of it
- ``{"id", "done", "total"}``: how far it has come, a few times a second; ``total`` null: nobody knows
- ``{"id", "digest"}``, ``{"id", "error", "message"}`` or ``{"id", "cancelled": true}``: its end; ``error`` is the name of the exception

It ends when the other side closes the socket. What is not whole by then stays where it is, for the next one.
"""
