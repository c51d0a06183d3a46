"""Runs SQL on one connection of Python's sqlite3: a line of JSON in, a line out."""
import json
import os
import sqlite3
import sys

connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
print(json.dumps({"pid": os.getpid()}), flush=True)
for line in sys.stdin:
    try:
        for statement in json.loads(line).split(";"):
            connection.execute(statement).fetchall()
        print("{}", flush=True)
    except sqlite3.Error as error:
        print(json.dumps({"error": str(error)}), flush=True)
