"""What goes in: sources of labelled images, their health, the split, decoding."""
