"""Raw files -> shards -> index -> plan -> batches, read in the order in which a sample travels."""
