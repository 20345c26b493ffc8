"""Files and objects: atomic writes, shards, parts, names, claims."""
