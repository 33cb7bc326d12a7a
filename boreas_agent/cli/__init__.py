"""The command line: thin over HTTP, and over the database for ``sql``.

``main`` declares the commands and imports what a command needs only when it runs, so that ``status`` answers quickly.
"""
