"""The screens of the studio, one file each."""
