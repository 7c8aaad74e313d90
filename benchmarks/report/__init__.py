"""What becomes of measurements: JSON, tables, a picture, a comparison, the README's table."""
