"""The rooms: one module each, with its own router. A new one is added to the list in `worklist/app.py`."""
