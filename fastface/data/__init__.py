"""Raw records -> index -> plan -> batches, read in the order in which a sample travels."""
