"""The qexport command: parse, call the library, print, exit status."""
