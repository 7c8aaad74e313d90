"""The first hour on a GPU as one command, ``python -m benchmarks gpu``: each step a process."""
