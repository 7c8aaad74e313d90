"""What becomes of measurements: JSON, tables, a picture, a comparison, docs/speed.md."""
