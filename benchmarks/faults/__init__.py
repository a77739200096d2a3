"""Jobs that are broken on purpose, at named places and in named ways, and what becomes of them: `make faults`."""
