"""The command line, ``fpgpu COMMAND``: one module a command."""
