"""What people have, and what comes of it: tables of cases, which ``docs/inputs.md`` is made of (``document.py``)."""
