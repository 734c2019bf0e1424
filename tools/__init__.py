"""Small tools of this repository: protos and stubs, tables of the docs, what the Makefile calls."""
