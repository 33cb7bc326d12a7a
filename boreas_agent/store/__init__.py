"""The history and the desired state: one SQLite file, and all the SQL there is.

``store.Store`` is the door; importing this package alone costs nothing, so that ``values`` may be used anywhere.
"""
