"""Run folders: manifest, metrics, samples, warnings. Free of torch, so that reports can read."""
