"""What the meta store is made of: headers, gWCS, footprints, and the files that hold them."""
