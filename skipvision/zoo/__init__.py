"""The small models that ship with the package: how they were made, and what they can do."""
