"""How skipvision runs on Kubernetes: manifests, and the programs that render and check them."""
