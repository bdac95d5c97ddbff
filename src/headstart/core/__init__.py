"""What all rooms use: errors, shared types, timing, atomic files, the cache folder."""
