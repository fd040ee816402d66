"""Embeddings and labels -> loss, by layers with parameters that train with the network but do not ship."""
