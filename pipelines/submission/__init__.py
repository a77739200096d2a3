"""Jobs that are sent elsewhere: to a Ray cluster by its job server, or to Kubernetes as a RayJob."""
