"""How fast fpgpu is, beside the machine's own memory copy and beside forcepho."""
