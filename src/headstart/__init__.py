"""Headstart: a folder of labelled photos becomes an image classifier you can trust."""
