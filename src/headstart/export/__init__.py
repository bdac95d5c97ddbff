"""Networks in other formats, and their weights for other libraries."""
