"""Models as graphs: weights apart from nodes, an index, edits, deduplication, weights as matrices."""
