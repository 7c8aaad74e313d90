"""Where exposures and regions lie on the sphere."""
