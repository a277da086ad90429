"""What the project promises of its speed, measured: `python -m bench`."""
