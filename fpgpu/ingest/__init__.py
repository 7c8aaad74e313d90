"""From archive files to exposures in a store."""
