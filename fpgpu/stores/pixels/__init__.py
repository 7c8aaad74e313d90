"""What the pixel store is made of: sizes, records, exposures in the file, reading, writing."""
