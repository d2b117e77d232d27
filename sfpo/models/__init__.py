"""Sources of starting policies: trained from scratch, a file in a Python package, a local folder, or the hub."""
