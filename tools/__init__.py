"""Small tools of this repository: protos and stubs."""
