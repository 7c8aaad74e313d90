"""The likelihood of a scene given a patch: one judge in float64, and the fast ones it judges."""
