"""A run: quanta on a cluster, even if some of them fail."""
