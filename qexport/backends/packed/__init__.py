"""The packed format .qpk (docs/packed-format.md): writer and reader."""
