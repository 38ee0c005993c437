"""The stages of an export: each is a function from the record of the one before to a record of its own."""
