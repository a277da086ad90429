"""Where the API keeps things: one SQLite file, and files on the data volume."""
