"""The model as a graph: its weights, its index, its edits."""
