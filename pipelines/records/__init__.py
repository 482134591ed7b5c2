"""Events and raw items in; ids, histories, requests, negatives and serialized records out."""
