"""Embeddings -> who looks like whom: nearest neighbours by FAISS, hard negatives, galleries, doubtful labels."""
