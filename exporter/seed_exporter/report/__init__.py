"""What an export did: lines for a terminal, a page for a browser."""
