"""One host that computes the vectors of an application."""

embedding_service = ["192.168.31.40"]
