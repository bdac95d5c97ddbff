"""What every room may use: errors, shared types, timing, atomic files, the cache folder."""
