"""One step in, the same step on several devices or machines out: replicas, parameter servers."""
