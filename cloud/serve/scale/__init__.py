"""How the service grows past one process: services that share a database, and the model's replicas on a Ray cluster."""
