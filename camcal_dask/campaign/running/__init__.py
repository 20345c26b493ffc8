"""A run: quanta on a cluster, whatever happens to some of them."""
