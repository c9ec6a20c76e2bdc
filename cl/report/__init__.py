"""What a finished run looks like: plots, and a page that holds them."""
