"""Raw datasets -> complete shard sets, resumable and checked, and what is wrong with the ones that exist."""
