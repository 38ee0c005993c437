"""Reports of an export: lines for a terminal, a page for a browser."""
