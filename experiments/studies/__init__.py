"""One file a table or figure of a paper, or a choice of this library's own."""
